"""Blueprints of articulated objects: which parts each category has, and how a random pose places them.

Coordinates are the object's own: x to the right, y down, about −1 … 1; creatures and vehicles look to the right.
Parts are listed from the farthest to the nearest, as a painter paints. Every proportion and every joint is drawn
anew, and paint tells nothing of the category.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from cnn_interp.images.drawing import Capsule, Ellipse, Polygon, Shape

Point = tuple[float, float]


@dataclass(frozen=True)
class Piece:
    """Something painted in one go.

    Attributes
    ----------
    part : str
        The part that it belongs to; several pieces may make one part.
    shapes : tuple of Shape
        Their union is painted.
    paint : str
        ``skin``, ``second``, ``dark``, ``metal``, ``glass``, ``light``; what colours these are differs from image
        to image.
    blend : float
        Over which distance the shapes melt into each other.
    dim : float
        Brightness, below 1 for what is on the far side.
    flat : float
        0 is round, 1 is flat.
    """

    part: str
    shapes: tuple[Shape, ...]
    paint: str = "skin"
    blend: float = 0.0
    dim: float = 1.0
    flat: float = 0.25


Blueprint = Callable[[np.random.Generator], list[Piece]]


def _from(point: Point, degrees: float, length: float) -> Point:
    """Return the point so far away; 0° is to the right, 90° down."""
    angle = np.deg2rad(degrees)
    return float(point[0] + length * np.cos(angle)), float(point[1] + length * np.sin(angle))


def _chain(start: Point, angles: list[float], lengths: list[float], radii: list[float]) -> list[Shape]:
    """Return limbs joined end to end; one radius more than limbs."""
    limbs: list[Shape] = []
    for angle, length, radius, end_radius in zip(angles, lengths, radii[:-1], radii[1:], strict=True):
        end = _from(start, angle, length)
        limbs.append(Capsule(start, end, radius, end_radius))
        start = end
    return limbs


def _disc(centre: Point, radius: float) -> Capsule:
    return Capsule(centre, centre, radius, radius)


def _oval(centre: Point, half_width: float, half_height: float, degrees: float = 0.0) -> Ellipse:
    angle = np.deg2rad(degrees)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    return Ellipse(
        centre, (half_width * cosine, half_width * sine), (-half_height * sine, half_height * cosine)
    )


def _eye(part: str, centre: Point, radius: float) -> list[Piece]:
    return [
        Piece(part, (_disc(centre, radius),), "light", flat=1.0),
        Piece(part, (_disc((centre[0] + 0.2 * radius, centre[1]), 0.6 * radius),), "dark", flat=1.0),
    ]


def quadruped(rng: np.random.Generator) -> list[Piece]:
    """Four legs, a long tail, a neck, ears: between a horse, a dog and a giraffe."""
    u = rng.uniform
    long, thick = u(0.32, 0.5), u(0.17, 0.26)
    leg, stout = u(0.4, 0.62), u(0.055, 0.085)
    hip, shoulder = (-long, u(-0.04, 0.02)), (long, u(-0.06, 0.02))

    def legs(root: Point, part: str, backwards: float, dim: float) -> Piece:
        swing = u(60, 120)
        bend = swing + backwards * u(0, 45)
        limbs = _chain(
            (root[0] + u(-0.03, 0.03), root[1] + 0.45 * thick),
            [swing, bend, bend - u(30, 75)],
            [0.5 * leg, 0.5 * leg, 0.09],
            [1.35 * stout, stout, 0.8 * stout, 0.8 * stout],
        )
        return Piece(part, tuple(limbs), dim=dim, blend=0.03)

    tail_angle = u(100, 235)
    curl = u(-35, 35)
    tail = _chain(
        (-long - 0.7 * thick, hip[1] - 0.3 * thick),
        [tail_angle, tail_angle + curl, tail_angle + 2 * curl],
        [u(0.14, 0.22)] * 3,
        [0.06, 0.05, 0.045, u(0.03, 0.09)],
    )
    neck_angle = u(-80, -20)
    neck_length = u(0.24, 0.5)
    neck_start = _from(shoulder, neck_angle, 0.4 * thick)
    neck_end = _from(neck_start, neck_angle, neck_length)
    gaze = neck_angle + u(45, 100)
    skull = u(0.11, 0.15)
    nose = _from(neck_end, gaze, u(0.16, 0.3))
    ear = u(0.1, 0.22)
    ears = [
        Piece(
            "head",
            (
                Capsule(
                    _from(neck_end, gaze - a, 0.8 * skull), _from(neck_end, gaze - a, skull + ear), 0.05, 0.02
                ),
            ),
            dim=dim,
        )
        for a, dim in ((u(70, 95), 0.7), (u(100, 130), 1.0))
    ]
    head = Piece(
        "head", (_disc(neck_end, skull), Capsule(neck_end, nose, 0.75 * skull, 0.5 * skull)), blend=0.08
    )
    muzzle = Piece("head", (_disc(nose, 0.46 * skull),), "second", flat=0.5)
    return [
        legs(hip, "hind legs", 1, 0.6),
        legs(shoulder, "front legs", -0.6, 0.6),
        Piece("tail", tuple(tail), str(rng.choice(["skin", "second"])), blend=0.02),
        ears[0],
        Piece("torso", (Capsule(hip, shoulder, thick * u(0.85, 1.0), thick),)),
        legs(hip, "hind legs", 1, 1.0),
        legs(shoulder, "front legs", -0.6, 1.0),
        Piece("neck", (Capsule(neck_start, neck_end, 0.6 * thick, 0.75 * skull),)),
        head,
        muzzle,
        ears[1],
        *_eye("head", _from(neck_end, gaze - 60, 0.4 * skull), 0.22 * skull),
    ]


def bird(rng: np.random.Generator) -> list[Piece]:
    """Two legs, wings folded or spread, a beak, a fan of a tail."""
    u = rng.uniform
    lean = u(-45, 5)
    long, thick = u(0.32, 0.42), u(0.2, 0.27)
    front, back = _from((0, 0), lean, long), _from((0, 0), lean + 180, long)
    neck = u(0.05, 0.3)
    head = _from(front, lean - u(15, 60), neck)
    skull = u(0.13, 0.18)
    gaze = u(-25, 30)
    beak = u(0.14, 0.34)
    tip = _from(head, gaze + u(-5, 20), skull + beak)
    root = [_from(head, gaze + side, 0.95 * skull) for side in (-24, 24)]
    fan = lean + 180 + u(-25, 25)
    spread, tail_length = u(8, 26), u(0.25, 0.5)
    feathers = [
        Capsule(_from(back, lean, 0.08), _from(back, fan + side * spread, tail_length), 0.07, 0.05)
        for side in (-1, -0.33, 0.33, 1)
    ]
    shoulder = _from((0, 0), lean, 0.4 * long)
    wing_angle = u(-130, -60) if rng.random() < 0.55 else lean + u(160, 195)
    wing_length = u(0.42, 0.7)
    hand = _from(shoulder, wing_angle, 0.5 * wing_length)
    plumes: list[Shape] = [Capsule(shoulder, hand, 0.11, 0.07)]
    plumes += [
        Capsule(
            _from(shoulder, wing_angle, share * 0.5 * wing_length),
            _from(
                _from(shoulder, wing_angle, share * 0.5 * wing_length),
                wing_angle - 18 - 34 * (1 - share),
                (0.55 + 0.25 * share) * wing_length,
            ),
            0.075,
            0.035,
        )
        for share in (0.2, 0.45, 0.7, 1.0)
    ]
    far = [shape for shape in plumes if isinstance(shape, Capsule)]
    turn = u(-0.12, -0.05)
    far_wing = tuple(
        Capsule(
            (s.start[0] + 0.07, s.start[1] + turn), (s.end[0] + 0.12, s.end[1] + turn), s.radius, s.end_radius
        )
        for s in far
    )
    leg = u(0.18, 0.42)
    stand: list[Piece] = []
    for side, dim in ((-0.06, 0.65), (0.06, 1.0)):
        swing = u(70, 115)
        hip = (side, 0.6 * thick)
        limbs = _chain(
            hip, [swing, 180 - swing + u(-10, 10), 5], [0.6 * leg, 0.7 * leg, 0.13], [0.05, 0.03, 0.028, 0.02]
        )
        stand.append(Piece("legs", tuple(limbs), "second", dim=dim))
    return [
        Piece("wing", far_wing, dim=0.65),
        *stand[:1],
        Piece("tail", tuple(feathers), str(rng.choice(["skin", "second"]))),
        Piece(
            "torso",
            (Capsule(back, front, 0.55 * thick, thick), Capsule(front, head, 0.7 * thick, 0.8 * skull)),
            blend=0.06,
        ),
        *stand[1:],
        Piece("beak", (Polygon((root[0], tip, root[1]), 0.015),), "second"),
        Piece("head", (_disc(head, skull),)),
        Piece("wing", tuple(plumes), str(rng.choice(["skin", "second"]))),
        *_eye("head", _from(head, gaze - 25, 0.5 * skull), 0.24 * skull),
    ]


def fish(rng: np.random.Generator) -> list[Piece]:
    """A streamlined torso, a swinging tail, fins on the back and below."""
    u = rng.uniform
    long, thick = u(0.5, 0.68), u(0.2, 0.36)
    bend = u(-20, 20)
    stem = _from((-0.75 * long, 0), 180 + bend, 0.14)
    size, fork = u(0.22, 0.4), u(28, 52)
    tail = Piece(
        "tail",
        tuple(
            Capsule(stem, _from(stem, 180 + bend + side * fork, size), 0.07, 0.045)
            for side in (-1, -0.45, 0.45, 1)
        ),
        "second",
        blend=0.03,
        flat=0.5,
    )
    front, back = u(-0.02, 0.22) * 1.0, u(-0.45, -0.2)
    crest = u(0.14, 0.34)
    dorsal = Polygon(
        (
            (front, -0.75 * thick),
            (0.5 * (front + back) - u(0, 0.15), -thick - crest),
            (back - 0.05, -0.55 * thick - 0.3 * crest),
            (back, -0.55 * thick),
        ),
        0.02,
    )
    drop = u(0.08, 0.22)
    belly = Polygon(((0.05, 0.8 * thick), (-0.1 - drop, thick + drop), (-0.25, 0.75 * thick)), 0.02)
    angle = u(95, 165)
    paddle_start = (0.12, 0.25 * thick)
    paddle_end = _from(paddle_start, angle, u(0.16, 0.26))
    middle = ((paddle_start[0] + paddle_end[0]) / 2, (paddle_start[1] + paddle_end[1]) / 2)
    gill = 0.45 * long
    head = _oval((gill + 0.06, 0), 0.55 * long, 0.78 * thick)
    eye = (gill + 0.22 * long, -0.25 * thick)
    return [
        tail,
        Piece("fins", (dorsal,), "second", flat=0.5),
        Piece("fins", (belly,), "second", flat=0.5),
        Piece("torso", (_oval((0, 0), long, thick), Capsule((0, 0), stem, 0.6 * thick, 0.06)), blend=0.05),
        Piece("head", (head,), dim=0.93),
        Piece("fins", (_oval(middle, 0.15, 0.07, angle),), "second", dim=1.08),
        *_eye("head", eye, u(0.045, 0.065)),
    ]


def person(rng: np.random.Generator) -> list[Piece]:
    """Upright on two legs, two arms, a bare head."""
    u = rng.uniform
    lean = u(-12, 12)
    tall, wide = u(0.34, 0.46), u(0.13, 0.19)
    hip: Point = (0.0, 0.12)
    chest = _from(hip, lean - 90, tall)
    head = _from(chest, lean - 90 + u(-15, 15), u(0.22, 0.27))
    skull = u(0.11, 0.16)
    side = _from((0, 0), lean, 1.0)

    def leg(offset: float, dim: float) -> Piece:
        swing = 90 + u(-38, 38)
        limbs = _chain(
            (hip[0] + offset * side[0], hip[1] + offset * side[1]),
            [swing, swing + u(0, 40), 10],
            [u(0.28, 0.34), u(0.28, 0.34), 0.1],
            [0.095, 0.075, 0.06, 0.055],
        )
        return Piece("legs", tuple(limbs), "second", dim=dim, blend=0.02)

    def arm(offset: float, dim: float) -> list[Piece]:
        swing = u(-20, 200)
        start = (chest[0] + offset * side[0], chest[1] + offset * side[1])
        limbs = _chain(start, [swing, swing - u(0, 100)], [u(0.22, 0.28)] * 2, [0.075, 0.06, 0.05])
        hand = limbs[-1]
        end = hand.end if isinstance(hand, Capsule) else start
        return [
            Piece("arms", tuple(limbs), dim=dim, blend=0.02),
            Piece("arms", (_disc(end, 0.06),), "second", dim=dim),
        ]

    face = _from(head, u(-10, 10), 0.35 * skull)
    return [
        *arm(-wide, 0.7),
        leg(-0.5 * wide, 0.75),
        leg(0.5 * wide, 1.0),
        Piece("torso", (Capsule(hip, chest, 0.85 * wide, 1.1 * wide),)),
        Piece("neck", (Capsule(chest, head, 0.06, 0.06),), "second", dim=0.8),
        Piece(
            "head",
            (_disc(head, skull), _disc(_from(head, lean + 85, 0.35 * skull), 0.8 * skull)),
            "second",
            blend=0.03,
        ),
        *_eye("head", face, 0.2 * skull),
        *_eye("head", _from(face, 180, 0.55 * skull), 0.2 * skull),
        *arm(wide, 1.0),
    ]


def _wheel(part: str, centre: Point, radius: float, rng: np.random.Generator) -> list[Piece]:
    start, spokes = rng.uniform(0, 360), int(rng.integers(3, 7))
    arms = tuple(
        Capsule(centre, _from(centre, start + 360 * k / spokes, 0.55 * radius), 0.08 * radius, 0.06 * radius)
        for k in range(spokes)
    )
    return [
        Piece(part, (_disc(centre, radius),), "dark", flat=0.45),
        Piece(part, (_disc(centre, 0.6 * radius),), "metal", flat=0.5),
        Piece(part, arms, "dark", flat=0.6),
        Piece(part, (_disc(centre, 0.16 * radius),), "metal"),
    ]


def car(rng: np.random.Generator) -> list[Piece]:
    """A body on two wheels (from the side), a cabin with windows, a lamp in front."""
    u = rng.uniform
    long, low, high = u(0.62, 0.82), 0.24, u(-0.08, 0.02)
    wheel = u(0.15, 0.22)
    rear, front = (-u(0.36, 0.48), low + u(-0.02, 0.04)), (u(0.36, 0.48), low + u(-0.02, 0.04))
    bonnet = u(-0.02, 0.12)
    body = Polygon(
        ((-long, high + 0.02), (0.15, high - 0.02), (long - 0.04, high + bonnet), (long, low), (-long, low)),
        0.045,
    )
    roof = high - u(0.2, 0.42)
    back, ahead = -u(0.3, 0.68), u(0.1, 0.42)
    cabin = (
        (back - u(-0.02, 0.12), high),
        (back + 0.05, roof),
        (ahead - u(0.08, 0.2), roof),
        (ahead + 0.05, high),
    )
    window = tuple(
        (0.82 * x + 0.18 * (back + ahead) / 2, 0.72 * y + 0.28 * ((roof + high) / 2)) for x, y in cabin
    )
    post = u(0.35, 0.65) * (back + ahead)
    lamp = (long - 0.05, high + bonnet + 0.07)
    return [
        Piece("cabin", (Polygon(cabin, 0.035),), str(rng.choice(["skin", "second"])), flat=0.5),
        Piece("cabin", (Polygon(window, 0.01),), "glass", flat=0.7),
        Piece("cabin", (Capsule((post, roof), (post, high), 0.025, 0.025),), "skin", flat=0.6),
        Piece("body", (body,), flat=0.35),
        Piece(
            "body",
            (Capsule((-0.6 * long, high + 0.13), (0.5 * long, high + 0.13), 0.014, 0.014),),
            "second",
            flat=1,
        ),
        Piece("headlight", (_oval(lamp, u(0.05, 0.08), u(0.05, 0.08)),), "light"),
        *_wheel("rear wheel", rear, wheel, rng),
        *_wheel("front wheel", front, wheel * u(0.9, 1.1), rng),
    ]


def aeroplane(rng: np.random.Generator) -> list[Piece]:
    """A long body, swept wings, a fin at the tail, engines, a cabin window."""
    u = rng.uniform
    long, thick = u(0.62, 0.82), u(0.1, 0.16)
    sweep, span = u(0.15, 0.5), u(0.4, 0.75)
    chord = u(0.2, 0.34)
    root = u(-0.05, 0.15)
    near = Polygon(
        (
            (root + chord, 0.3 * thick),
            (root + chord - sweep - 0.12, span),
            (root - sweep - 0.12, span),
            (root - 0.08, 0.3 * thick),
        ),
        0.02,
    )
    lift = u(0.35, 0.6) * span
    far = Polygon(
        (
            (root + chord, -0.5 * thick),
            (root + chord - sweep, -lift),
            (root - sweep + 0.06, -lift),
            (root - 0.02, -0.5 * thick),
        ),
        0.015,
    )
    fin = u(0.22, 0.42)
    tail = Polygon(
        (
            (-long + 0.24, -0.5 * thick),
            (-long - 0.02, -thick - fin),
            (-long - 0.15, -thick - fin),
            (-long - 0.06, 0),
        ),
        0.02,
    )
    stabiliser = Polygon(
        (
            (-long + 0.16, 0.1 * thick),
            (-long - 0.1, 0.2 + 0.1 * u()),
            (-long - 0.18, 0.2),
            (-long - 0.05, 0.05),
        ),
        0.015,
    )
    reach = u(0.35, 0.6)
    nacelle = (root + 0.55 * chord - sweep * reach, 0.3 * thick + (span - 0.3 * thick) * reach)
    engine = Capsule(
        (nacelle[0] - 0.06, nacelle[1] + 0.04), (nacelle[0] + 0.16, nacelle[1] + 0.04), 0.05, 0.07
    )
    windows = tuple(
        _disc((x, -0.25 * thick), 0.022)
        for x in np.linspace(-0.55 * long, 0.55 * long, int(rng.integers(5, 9)))
    )
    return [
        Piece("wing", (far,), "second", dim=0.75, flat=0.7),
        Piece("tail", (tail,), str(rng.choice(["skin", "second"])), flat=0.6),
        Piece(
            "body",
            (
                Capsule((-long, -0.02), (-0.4 * long, 0), 0.4 * thick, thick),
                Capsule((-0.4 * long, 0), (0.72 * long, 0), thick, thick),
                Capsule((0.72 * long, 0), (long, 0.03), thick, 0.55 * thick),
            ),
            blend=0.02,
        ),
        Piece("body", windows, "glass", flat=1),
        Piece(
            "cabin",
            (
                Polygon(
                    (
                        (0.74 * long, -0.75 * thick),
                        (0.95 * long, -0.5 * thick),
                        (1.0 * long, -0.05 * thick),
                        (0.76 * long, -0.1 * thick),
                    ),
                    0.012,
                ),
            ),
            "glass",
            flat=0.5,
        ),
        Piece("tail", (stabiliser,), "second", flat=0.6),
        Piece("engine", (engine,), "metal"),
        Piece("wing", (near,), "second", flat=0.7),
        Piece("engine", (_disc((nacelle[0] + 0.17, nacelle[1] + 0.04), 0.05),), "dark", flat=0.6),
    ]


def excavator(rng: np.random.Generator) -> list[Piece]:
    """Tracks, a body that carries a cabin, an arm of two limbs, a bucket."""
    u = rng.uniform
    long = u(0.34, 0.46)
    track = Capsule((-long - 0.1, 0.42), (long - 0.1, 0.42), 0.13, 0.13)
    rollers = tuple(_disc((x, 0.42), 0.055) for x in np.linspace(-long - 0.1, long - 0.1, 4))
    shift = u(-0.12, 0.04)
    body = Polygon(
        ((-0.55 + shift, 0.02), (0.2 + shift, 0.02), (0.22 + shift, 0.24), (-0.5 + shift, 0.24)), 0.04
    )
    place = u(-0.2, 0.02) + shift
    roof = -u(0.26, 0.42)
    cabin = ((place - 0.15, 0.02), (place - 0.13, roof), (place + 0.12, roof), (place + 0.2, 0.02))
    window = tuple((0.72 * x + 0.28 * (place + 0.02), 0.7 * y + 0.3 * (roof / 2 - 0.02)) for x, y in cabin)
    foot = (0.22 + shift, 0.1)
    rise, length = u(-75, -30), u(0.45, 0.6)
    elbow = _from(foot, rise, length)
    fall = u(25, 100)
    reach = u(0.35, 0.5)
    wrist = _from(elbow, fall, reach)
    curl = fall + u(-20, 70)
    scoop = u(0.15, 0.22)
    lip, heel = _from(wrist, curl + 50, 1.5 * scoop), _from(wrist, curl + 130, scoop)
    bowl = _from(wrist, curl + 90, 1.6 * scoop)
    return [
        Piece("tracks", (track,), "dark", flat=0.4),
        Piece("tracks", rollers, "metal", flat=0.4),
        Piece("body", (body,), flat=0.4),
        Piece("cabin", (Polygon(cabin, 0.03),), str(rng.choice(["skin", "second"])), flat=0.5),
        Piece("cabin", (Polygon(window, 0.01),), "glass", flat=0.7),
        Piece("arm", (Capsule(foot, elbow, 0.075, 0.065),), flat=0.35),
        Piece("arm", (Capsule(elbow, wrist, 0.065, 0.045), _disc(elbow, 0.07)), flat=0.35),
        Piece("arm", (_disc(elbow, 0.03),), "dark"),
        Piece(
            "bucket",
            (Polygon((wrist, lip, bowl, heel), 0.03),),
            str(rng.choice(["metal", "second"])),
            flat=0.3,
        ),
    ]


def lamp(rng: np.random.Generator) -> list[Piece]:
    """A desk lamp: a foot, two limbs, a shade with its bulb."""
    u = rng.uniform
    foot = (u(-0.35, 0.1), 0.6)
    wide = u(0.2, 0.32)
    stem = (foot[0], foot[1] - 0.06)
    rise, lower = u(-150, -60), u(0.45, 0.62)
    elbow = _from(stem, rise, lower)
    lean, upper = u(-75, 5), u(0.4, 0.56)
    neck = _from(elbow, lean, upper)
    tilt = u(25, 110)
    throat = _from(neck, tilt, 0.04)
    mouth = _from(neck, tilt, u(0.26, 0.36))
    half, narrow = u(0.17, 0.26), 0.07
    rim = [_from(mouth, tilt + side, half) for side in (-90, 90)]
    top = [_from(throat, tilt + side, narrow) for side in (90, -90)]
    return [
        Piece("base", (_oval(foot, wide, u(0.06, 0.1)),), str(rng.choice(["skin", "second"]))),
        Piece(
            "lower arm",
            (Capsule(stem, elbow, 0.035, 0.035), _disc(stem, 0.055)),
            str(rng.choice(["metal", "second"])),
        ),
        Piece("upper arm", (Capsule(elbow, neck, 0.035, 0.035),), str(rng.choice(["metal", "second"]))),
        Piece("lower arm", (_disc(elbow, 0.055),), "dark"),
        Piece("shade", (_disc(mouth, 0.09),), "light"),
        Piece(
            "shade",
            (Polygon((rim[0], rim[1], top[0], top[1]), 0.02), _disc(throat, 0.08)),
            blend=0.03,
            flat=0.15,
        ),
    ]


def scissors(rng: np.random.Generator) -> list[Piece]:
    """Two blades that open about a pivot, two rings to hold."""
    u = rng.uniform
    opening, length = u(6, 34), u(0.6, 0.85)
    width, ring = u(0.06, 0.1), u(0.14, 0.2)
    pieces: list[Piece] = []
    for side, dim in ((-1, 0.85), (1, 1.0)):
        ahead = side * opening
        start, tip = _from((0, 0), ahead + 180, 0.12), _from((0, 0), ahead, length)
        edge = _from(_from((0, 0), ahead, 0.12), ahead + side * 90, width)
        pieces.append(
            Piece(
                "blades",
                (Polygon((start, _from(start, ahead - side * 90, 0.5 * width), tip, edge), 0.02),),
                "metal",
                dim=dim,
                flat=0.4,
            )
        )
        shank = _from((0, 0), ahead + 180, 0.34)
        centre = _from(shank, ahead + 180 + side * 14, 0.85 * ring)
        oval = [
            _from(centre, angle, ring * (1 + 0.3 * abs(np.cos(np.deg2rad(angle)))))
            for angle in range(0, 360, 30)
        ]
        loop = tuple(Capsule(a, b, 0.05, 0.05) for a, b in zip(oval, [*oval[1:], oval[0]], strict=True))
        pieces.append(Piece("handles", (Capsule((0, 0), shank, 0.055, 0.055), *loop), dim=dim))
    return [*pieces, Piece("pivot", (_disc((0, 0), 0.065),), str(rng.choice(["second", "dark"])))]


BLUEPRINTS: Mapping[str, Blueprint] = MappingProxyType(
    {
        "quadruped": quadruped,
        "bird": bird,
        "fish": fish,
        "person": person,
        "car": car,
        "aeroplane": aeroplane,
        "excavator": excavator,
        "lamp": lamp,
        "scissors": scissors,
    }
)
PART_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "quadruped": ("head", "neck", "torso", "front legs", "hind legs", "tail"),
        "bird": ("head", "beak", "torso", "wing", "legs", "tail"),
        "fish": ("head", "torso", "fins", "tail"),
        "person": ("head", "neck", "torso", "arms", "legs"),
        "car": ("body", "cabin", "headlight", "front wheel", "rear wheel"),
        "aeroplane": ("body", "cabin", "wing", "engine", "tail"),
        "excavator": ("tracks", "body", "cabin", "arm", "bucket"),
        "lamp": ("base", "lower arm", "upper arm", "shade"),
        "scissors": ("blades", "handles", "pivot"),
    }
)
# Creatures and vehicles that stand on the ground are turned less than what flies, swims or lies about.
LEAST_TURN = 18.0
TURNS: Mapping[str, float] = MappingProxyType(
    {"fish": 40.0, "aeroplane": 45.0, "scissors": 180.0, "bird": 25.0}
)
