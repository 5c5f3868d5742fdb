"""Logic rules taught to a network (Hu, Ma, Liu, Hovy and Xing, 2016): a teacher obeys them, the network imitates it.

The teacher is the distribution nearest to the network's that satisfies the rules in expectation,
q(y|x) ∝ p(y|x) exp(−Σ C λ (1 − r(x, y))).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from interpretkit.errors import InputError
from interpretkit.training import History, TensorBatches, derive_seed, fit

# From attributes (n, a) and the network's probabilities (n, classes) to how true the rule is for each class
# (n, classes), in 0 … 1.
Truth = Callable[[Tensor, Tensor], Tensor]

STRENGTH = 6.0
# Of a figure enlarged to some 24 px: what counts as ink, of the strongest, and the smallest hole, px.
INK = (0.2, 0.3, 0.4, 0.5)
SMALLEST_HOLE = 2


@dataclass(frozen=True)
class Rule:
    """Something that holds between what an example has and what it is.

    Attributes
    ----------
    name : str
        In words.
    truth : callable
        From attributes ``(n, a)`` and the network's probabilities ``(n, classes)`` to the truth of the rule for each
        example and class ``(n, classes)``, in 0 … 1.
    confidence : float
        λ, at least 0; infinite confidence in effect where λ · C is large.
    """

    name: str
    truth: Truth
    confidence: float = 1.0


def implication(attribute: int, classes: Sequence[int], *, negated: bool = False) -> Truth:
    """Return the truth of "what has the attribute is of one of the classes", by Łukasiewicz's logic.

    min(1, 1 − a(x) + 1[y ∈ classes]) for an attribute a in 0 … 1.

    Parameters
    ----------
    attribute : int
        Its column.
    classes : sequence of int
        Those that it admits.
    negated : bool
        Whether the rule is about what lacks the attribute.
    """

    def truth(attributes: Tensor, probabilities: Tensor) -> Tensor:
        held = attributes[:, attribute].to(probabilities)
        held = 1 - held if negated else held
        admitted = torch.zeros(probabilities.shape[1], dtype=probabilities.dtype, device=probabilities.device)
        admitted[list(classes)] = 1
        return (1 - held[:, None] + admitted[None]).clamp(0, 1)

    return truth


def parse_rule(text: str, attributes: Sequence[str], categories: Sequence[str]) -> Rule:
    """Return the rule that a line says: ``wheels -> car, truck``, ``not wheels -> cat @ 0.5``.

    Parameters
    ----------
    text : str
        An attribute, perhaps after ``not``; an arrow; the categories that it admits, with commas; perhaps ``@`` and
        the confidence, which is 1 otherwise.
    attributes, categories : sequence of str
        The names in use.

    Raises
    ------
    InputError
        If it cannot be read, a name is unknown, or the confidence is not above 0 and up to 1.
    """
    found = re.fullmatch(r"\s*(not\s+)?(.+?)\s*->\s*(.+?)\s*(?:@\s*([0-9.]+)\s*)?", text)
    if found is None:
        raise InputError(
            f"rule {text!r}: expected ATTRIBUTE -> CATEGORY, …, such as 'wheels -> car, truck @ 1'"
        )
    negation, attribute, admitted, confidence = found.groups()
    if attribute not in attributes:
        raise InputError(
            f"rule {text!r}: no attribute {attribute!r}; expected one of {', '.join(attributes)}"
        )
    names = [name.strip() for name in admitted.split(",")]
    for name in names:
        if name not in categories:
            raise InputError(f"rule {text!r}: no category {name!r}; expected some of {', '.join(categories)}")
    try:
        weight = 1.0 if confidence is None else float(confidence)
    except ValueError as error:
        raise InputError(f"rule {text!r}: confidence {confidence!r}; expected a number") from error
    if not 0 < weight <= 1:
        raise InputError(f"rule {text!r}: confidence {confidence}; expected above 0 up to 1")
    truth = implication(
        list(attributes).index(attribute),
        [list(categories).index(name) for name in names],
        negated=negation is not None,
    )
    return Rule(text.strip(), truth, weight)


def teacher(
    probabilities: Tensor, attributes: Tensor, rules: Sequence[Rule], *, strength: float = STRENGTH
) -> Tensor:
    """Return the teacher's distribution, the closed form of minimising KL(q‖p) + C Σ λ max(0, 1 − E_q[r]).

    Truths do not exceed 1, so that the penalty is linear in q and the minimum exact.

    Parameters
    ----------
    probabilities : Tensor, (n, classes)
        The network's, each row summing to one.
    attributes : Tensor, (n, a)
        What the rules are about.
    rules : sequence of Rule
        Any number; without rules the teacher is the network.
    strength : float
        C.

    Returns
    -------
    Tensor, (n, classes)

    Raises
    ------
    InputError
        If a rule gives another shape than ``(n, classes)``, values out of 0 … 1, or has a negative confidence.
    """
    if len(attributes) != len(probabilities):
        raise InputError(
            f"attributes: {len(attributes)} rows for {len(probabilities)} examples; expected as many"
        )
    penalty = torch.zeros_like(probabilities)
    for rule in rules:
        if rule.confidence < 0:
            raise InputError(f"rule {rule.name!r}: confidence {rule.confidence}; expected at least 0")
        truth = rule.truth(attributes, probabilities)
        if truth.shape != probabilities.shape:
            raise InputError(
                f"rule {rule.name!r}: gave shape {tuple(truth.shape)}; expected {tuple(probabilities.shape)}, "
                "a truth for each example and class"
            )
        if not bool(((truth >= 0) & (truth <= 1)).all()):
            raise InputError(f"rule {rule.name!r}: gave truths out of range; expected values in 0 … 1")
        penalty = penalty + strength * rule.confidence * (1 - truth)
    # In logarithms, for strong rules leave nothing of a class in single precision.
    logarithms = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log() - penalty
    return logarithms.softmax(1)


@dataclass(frozen=True)
class Imitation:
    """How much of the objective is imitation of the teacher: π = min(most, 1 − decay ** epoch), growing from 0.

    Attributes
    ----------
    most : float
        Its last value.
    decay : float
        In 0 … 1; the smaller, the sooner.
    """

    most: float = 0.9
    decay: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.most <= 1 or not 0 <= self.decay <= 1:
            raise InputError(f"imitation {self.most}, decay {self.decay}: expected both in 0 … 1")

    def __call__(self, epoch: int) -> float:
        """Return π in an epoch, from 0."""
        return min(self.most, 1 - self.decay**epoch)


@dataclass(frozen=True)
class Examples:
    """Examples with what the rules are about.

    Attributes
    ----------
    inputs : Tensor, (n, ...)
        As the network takes them.
    attributes : Tensor, (n, a)
        In 0 … 1.
    labels : Tensor of int, (n,)
        Classes; -1 where none is known.
    """

    inputs: Tensor
    attributes: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        lengths = {len(self.inputs), len(self.attributes), len(self.labels)}
        if len(lengths) != 1:
            raise InputError(
                f"examples: {len(self.inputs)} inputs, {len(self.attributes)} attributes, {len(self.labels)} labels; "
                "expected as many of each"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, chosen: Tensor) -> Examples:
        """Return those of some rows, by a mask ``(n,)`` or by places."""
        return Examples(self.inputs[chosen], self.attributes[chosen], self.labels[chosen])


def train_with_rules(
    module: nn.Module,
    examples: Examples,
    rules: Sequence[Rule],
    *,
    base: nn.Module | None = None,
    strength: float = STRENGTH,
    imitation: Imitation | None = None,
    epochs: int = 60,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-3,
    seed: int = 0,
    quiet: bool = False,
) -> History:
    """Train a network in place on labels and, more and more, on what its teacher says.

    The objective is (1 − π) · cross-entropy with the labels + π · cross-entropy with the teacher q, who is built anew
    from the network's own predictions in each step. Examples without a label take part in the second term alone.
    Without rules the teacher says what the network says, and the training is an ordinary one on the labels.

    Parameters
    ----------
    module : Module
        From inputs ``(n, ...)`` to logits ``(n, classes)``.
    examples : Examples
        At least one of them labelled.
    rules : sequence of Rule
        What is known.
    base : Module, optional
        The network whose predictions the teacher corrects, as it is; by default the one in training, as in the
        article. Where most examples have no label, nothing else holds the network there: the correction is applied
        to what was corrected already, again and again, and a rule that is right nine times in ten is in the end
        obeyed always. A network trained on the labels alone is then the better base.
    strength : float
        C of :func:`teacher`.
    imitation : Imitation, optional
        How π grows; by default to 0.9.
    epochs, batch_size, learning_rate, weight_decay
        Number of epochs, batch size, learning rate and weight decay of AdamW. An epoch goes through the examples once;
        each of its steps sees a batch of all examples and one of labelled ones.
    seed : int
        Seed of the order.
    quiet : bool
        Show no progress.

    Raises
    ------
    InputError
        If no example is labelled, or a rule cannot be used.
    """
    labelled = examples.labels >= 0
    if not bool(labelled.any()):
        raise InputError("labels: none is known; expected at least one labelled example")
    schedule = Imitation() if imitation is None else imitation
    if not rules:
        schedule = Imitation(0.0)
    batches = _Paired(examples, examples.rows(labelled), batch_size, seed)

    def loss(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        share = schedule(batches.epoch)
        told = F.cross_entropy(network(batch["labelled_inputs"]), batch["labels"])
        if share == 0:
            return {"loss": told}
        logits = network(batch["inputs"])
        with torch.no_grad():
            believed = logits.detach() if base is None else base(batch["inputs"])
            wanted = teacher(believed.softmax(1), batch["attributes"], rules, strength=strength)
        imitated = -(wanted * logits.log_softmax(1)).sum(1).mean()
        return {"loss": (1 - share) * told + share * imitated, "told": told, "imitated": imitated}

    return fit(
        module,
        batches,
        loss,
        optimizer=torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay),
        epochs=epochs,
        precision="float32",
        description="Learning by rules" if rules else "Learning by labels",
        quiet=quiet,
    )


class _Paired:
    """Batches of all examples, each with a batch of labelled ones, which are gone through as often as needed."""

    def __init__(self, examples: Examples, labelled: Examples, size: int, seed: int) -> None:
        self.every = TensorBatches(
            {"inputs": examples.inputs, "attributes": examples.attributes},
            size,
            seed=derive_seed(seed, "all"),
        )
        self.labelled = TensorBatches(
            {"labelled_inputs": labelled.inputs, "labels": labelled.labels},
            size,
            seed=derive_seed(seed, "labelled"),
        )
        self.epoch = 0
        self._rounds = -(-len(self.every) // len(self.labelled))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.every.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        told = self._told()
        for batch in self.every:
            yield batch | next(told)

    def _told(self) -> Iterator[dict[str, Tensor]]:
        for number in range(self._rounds):
            self.labelled.set_epoch(self.epoch * self._rounds + number)
            yield from self.labelled


@dataclass(frozen=True)
class Verdict:
    """How well networks with and without rules do on unseen examples.

    Attributes
    ----------
    plain : float
        Accuracy of the network trained on labels alone.
    plain_with_rules : float
        The same network, corrected by the rules when it is used.
    student : float
        The network that imitated its teacher.
    teacher : float
        Its teacher: the student, corrected by the rules when it is used.
    rules : list of dict
        For each rule its confidence, the share of unseen examples that it says anything about, and the share of those
        whose true class it admits.
    """

    plain: float
    plain_with_rules: float
    student: float
    teacher: float
    rules: list[dict[str, object]] = field(default_factory=list)


def compare(
    build: Callable[[], nn.Module],
    examples: Examples,
    unseen: Examples,
    rules: Sequence[Rule],
    *,
    anchored: bool = True,
    strength: float = STRENGTH,
    imitation: Imitation | None = None,
    epochs: int = 60,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[Verdict, nn.Module, nn.Module]:
    """Train the same network with and without rules, and measure both.

    Parameters
    ----------
    build : callable
        Makes an untrained network; called under the same seed for both.
    examples, unseen : Examples
        To train on, and to measure on (all labelled).
    anchored : bool
        Whether the teacher corrects the network trained on labels alone; otherwise, as in the article, the one in
        training.
    rules, strength, imitation, epochs, seed, quiet
        See :func:`train_with_rules`.

    Returns
    -------
    verdict : Verdict
    plain, student : Module
        The networks.
    """
    networks: list[nn.Module] = []
    for known in ((), tuple(rules)):
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "weights"))
            module = build()
            # Layers such as dropout draw from the global random numbers.
            torch.manual_seed(derive_seed(seed, "training"))
            train_with_rules(
                module,
                examples,
                known,
                base=networks[0] if networks and anchored else None,
                strength=strength,
                imitation=imitation,
                epochs=epochs,
                seed=seed,
                quiet=quiet,
            )
        networks.append(module)
    plain, student = networks
    with torch.no_grad():
        found = [module(unseen.inputs).softmax(1) for module in networks]
    taught = [teacher(p, unseen.attributes, rules, strength=strength) for p in found]

    def accuracy(probabilities: Tensor) -> float:
        return float((probabilities.argmax(1) == unseen.labels).double().mean())

    table = rule_table(rules, unseen, found[1])
    verdict = Verdict(accuracy(found[0]), accuracy(taught[0]), accuracy(found[1]), accuracy(taught[1]), table)
    return verdict, plain, student


def rule_table(rules: Sequence[Rule], examples: Examples, probabilities: Tensor) -> list[dict[str, object]]:
    """Return for each rule how often it says anything about examples, and how often it is right then."""
    rows: list[dict[str, object]] = []
    for rule in rules:
        truth = rule.truth(examples.attributes, probabilities)
        speaks = truth.min(1).values < 1
        own = truth.gather(1, examples.labels[:, None])[:, 0]
        rows.append(
            {
                "rule": rule.name,
                "confidence": rule.confidence,
                "applies to": float(speaks.double().mean()),
                "holds": float(own[speaks].double().mean()) if bool(speaks.any()) else None,
            }
        )
    return rows


DIGIT_ATTRIBUTES = ("no hole", "two holes", "one hole above", "one hole below", "one hole in the middle")
# What anybody knows of handwritten figures, before having seen these.
DIGIT_RULES = (
    "two holes -> 8",
    "one hole above -> 9, 4, 8",
    "one hole below -> 6, 8",
    "one hole in the middle -> 0, 4, 6, 9",
    # Pen strokes often leave a loop open, so that this one is not to be trusted as much.
    "no hole -> 1, 2, 3, 4, 5, 7 @ 0.3",
)


def digit_attributes(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how surely handwritten figures have holes, and where.

    Parameters
    ----------
    images : ndarray of float, (n, h, w)
        Light strokes on a dark ground.

    Returns
    -------
    ndarray of float, (n, 5)
        By ``DIGIT_ATTRIBUTES``: the share of the thresholds ``INK`` at which it is so, for a faint stroke closes a
        hole at some of them. A single hole lies above or below if its centre is more than a twelfth of the figure's
        height away from the figure's middle.
    """
    from scipy.ndimage import zoom
    from skimage.measure import label

    images = np.asarray(images, dtype=np.float64)
    found = np.zeros((len(images), len(DIGIT_ATTRIBUTES)))
    factor = max(1, 24 // images.shape[1])
    enlarged = np.pad(np.asarray(zoom(images, (1, factor, factor), order=1)), ((0, 0), (1, 1), (1, 1)))
    for number, image in enumerate(enlarged):
        for share in INK:
            ink = image > share * max(float(image.max()), 1e-12)
            # Ground that meets at corners only is parted, as strokes that meet at corners are joined.
            ground = np.asarray(label(~ink, connectivity=1))
            sizes = np.bincount(ground.ravel())
            holes = [i for i in range(1, len(sizes)) if i != ground[0, 0] and sizes[i] >= SMALLEST_HOLE]
            rows = np.flatnonzero(ink.any(1))
            if len(holes) == 0:
                place = 0
            elif len(holes) >= 2:
                place = 1
            else:
                centre = np.nonzero(ground == holes[0])[0].mean()
                offset = (centre - (rows[0] + rows[-1]) / 2) / (rows[-1] - rows[0] + 1)
                place = 2 if offset < -1 / 12 else 3 if offset > 1 / 12 else 4
            found[number, place] += 1 / len(INK)
    return found
