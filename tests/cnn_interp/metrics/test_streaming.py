import io

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cnn_interp.units.streaming import LargestValues, Overlaps, ShownConcepts, UpperQuantiles
from interpretkit.errors import InputError


def through_a_file(state):
    """Return a state as it comes back from an npz that holds no Python objects."""
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def sketch_of(values, *, capacity, portion):
    sketch = UpperQuantiles(len(values), capacity=capacity)
    for start in range(0, values.shape[1], portion):
        sketch.add(torch.from_numpy(values[:, start : start + portion]))
    return sketch


def streams(n):
    rng = np.random.default_rng(0)
    return {
        "normal": rng.standard_normal((3, n)),
        "ascending": np.sort(rng.standard_normal((3, n)), axis=1),
        "descending": -np.sort(rng.standard_normal((3, n)), axis=1),
        "few values": rng.integers(0, 5, (3, n)).astype(float),
        "mostly zero": np.maximum(rng.standard_normal((3, n)) - 2, 0),
        "alternating": np.where(np.arange(n) % 2, 1.0, -1.0) * rng.random((3, n)),
        "drifting": rng.standard_normal((3, n)) + np.linspace(0, 5, n),
    }


@pytest.mark.parametrize("name", streams(10))
@pytest.mark.parametrize("share", [0.005, 0.03, 0.5])
@pytest.mark.parametrize("portion", [1000, 77])
def test_the_error_of_a_quantile_is_within_its_bound(name, share, portion):
    values = streams(20_011)[name]
    sketch = sketch_of(values, capacity=128, portion=portion)
    threshold = sketch.threshold(share)
    bound = sketch.rank_error(threshold).numpy()
    above = (values > threshold.numpy()[:, None]).mean(axis=1)
    at_or_above = (values >= threshold.numpy()[:, None]).mean(axis=1)
    assert np.all(above <= share + bound + 1e-12)
    assert np.all(at_or_above >= share - bound - 1e-12)
    assert np.all(bound < 0.12)


def test_a_tail_that_fits_is_exact():
    values = np.random.default_rng(1).standard_normal((4, 30_000))
    sketch = sketch_of(values, capacity=151, portion=640)
    threshold = sketch.threshold(0.005)
    assert np.array_equal(threshold.numpy(), np.sort(values, axis=1)[:, -151])
    assert sketch.rank_error(threshold).eq(0).all()
    # The bound is no excuse: farther down the sketch is not exact, and says so.
    assert sketch.rank_error(sketch.threshold(0.3)).gt(0).all()


def test_at_most_the_share_lies_above():
    values = np.array([[0.0, 0.0, 1.0, 1.0], [4.0, 3.0, 2.0, 1.0], [7.0, 7.0, 7.0, 7.0]])
    sketch = sketch_of(values, capacity=10, portion=4)
    assert sketch.threshold(0.5).tolist() == [0.0, 2.0, 7.0]
    assert sketch.threshold(0.25).tolist() == [1.0, 3.0, 7.0]
    assert sketch.threshold(0.0).tolist() == [1.0, 4.0, 7.0]


def test_memory_grows_with_the_logarithm_only():
    sketch = UpperQuantiles(2, capacity=64)
    generator = torch.Generator().manual_seed(0)
    kept = []
    for _ in range(400):
        sketch.add(torch.randn(2, 500, generator=generator))
        kept.append(sum(level.shape[1] for level in sketch._levels))
    assert sketch.count == 200_000
    assert max(kept) <= 2 * 64 * (np.log2(200_000 / 64) + 1)


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


def test_a_quantile_takes_little_memory_beside_the_sketch():
    values = np.random.default_rng(8).standard_normal((300, 900)).astype(np.float32)
    sketch = sketch_of(values, capacity=100, portion=90)
    kept = sum(level.numel() for level in sketch._levels)
    with Largest() as made:
        threshold = sketch.threshold(0.05)
    assert made.numbers < kept / 4
    # Units do not depend on those beside them.
    for unit in (0, 63, 64, 299):
        alone = sketch_of(values[unit : unit + 1], capacity=100, portion=90)
        assert alone.threshold(0.05)[0] == threshold[unit]


@pytest.mark.parametrize("sizes", [(9000, 5000), (50, 7000), (7000, 0), (0, 40)])
def test_merged_sketches_keep_their_bound(sizes):
    values = np.random.default_rng(2).standard_normal((3, sum(sizes)))
    first = sketch_of(values[:, : sizes[0]], capacity=64, portion=500)
    first.merge(sketch_of(values[:, sizes[0] :], capacity=64, portion=300))
    assert first.count == sum(sizes)
    threshold = first.threshold(0.02)
    error = np.abs(
        (values > threshold.numpy()[:, None]).mean(axis=1) - np.floor(0.02 * sum(sizes)) / sum(sizes)
    )
    assert np.all(error <= first.rank_error(threshold).numpy() + 1.5 / sum(sizes))


def test_a_sketch_goes_on_from_its_state():
    values = np.random.default_rng(3).standard_normal((2, 4000))
    whole = sketch_of(values, capacity=32, portion=100)
    half = sketch_of(values[:, :2000], capacity=32, portion=100)
    again = UpperQuantiles.from_state(through_a_file(half.state()))
    for start in range(2000, 4000, 100):
        again.add(torch.from_numpy(values[:, start : start + 100]))
    assert torch.equal(again.threshold(0.01), whole.threshold(0.01))
    assert torch.equal(again.rank_error(again.threshold(0.5)), whole.rank_error(whole.threshold(0.5)))


def test_quantiles_refuse_what_they_cannot_order():
    sketch = UpperQuantiles(2)
    with pytest.raises(InputError, match="no values"):
        sketch.threshold(0.1)
    with pytest.raises(InputError, match="NaN"):
        sketch.add(torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(InputError, match=r"expected \(2, m\)"):
        sketch.add(torch.zeros(3, 1))
    with pytest.raises(InputError, match="share 1"):
        sketch.threshold(1)
    with pytest.raises(InputError, match="expected the same"):
        sketch.merge(UpperQuantiles(3))


def test_largest_values_are_those_of_a_sort():
    rng = np.random.default_rng(4)
    values = rng.integers(0, 30, (5, 200)).astype(float)  # many equals
    kept = LargestValues(5, 12)
    parts = np.split(rng.permutation(200), [7, 60, 150])
    for part in parts:
        places = torch.from_numpy(1000 * np.arange(5)[:, None] + part)
        kept.add(torch.from_numpy(values[:, part]), torch.from_numpy(part), places)
    assert kept.count == 200
    for unit in range(5):
        order = sorted(range(200), key=lambda item: (-values[unit, item], item))[:12]
        assert kept.items[unit].tolist() == order
        assert kept.places[unit].tolist() == [1000 * unit + item for item in order]
        assert kept.values[unit].tolist() == values[unit, order].tolist()


def test_largest_values_merge_in_any_order():
    rng = np.random.default_rng(5)
    values = torch.from_numpy(rng.integers(0, 9, (3, 40)).astype(float))
    parts = []
    for items in torch.arange(40).split(15):
        part = LargestValues(3, 6)
        part.add(values[:, items], items)
        parts.append(part)
    forward, backward = LargestValues(3, 6), LargestValues(3, 6)
    for part in parts:
        forward.merge(part)
    for part in reversed(parts):
        backward.merge(LargestValues.from_state(through_a_file(part.state())))
    assert torch.equal(forward.items, backward.items)
    assert torch.equal(forward.values, values.gather(1, forward.items))
    assert forward.count == backward.count == 40
    with pytest.raises(InputError, match="expected the same"):
        forward.merge(LargestValues(3, 5))
    with pytest.raises(InputError, match="some are NaN"):
        forward.add(torch.full((3, 1), torch.nan), torch.tensor([40]))
    with pytest.raises(InputError, match=r"expected \(3, 1\)"):
        forward.add(torch.zeros(3, 1), torch.tensor([40]), torch.zeros(3, 2, dtype=torch.int64))


CATEGORY_OF = np.array([0, 0, 1, 2])


def random_images(n, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        # Many images lack a category, and a pixel may show two concepts.
        labels = rng.integers(0, 5, (2, 30)) * rng.integers(0, 2, (2, 1))
        active = np.flatnonzero(rng.random(6) < 0.6)
        yield active, rng.random((len(active), 30)) < 0.4, labels


def add_all(overlaps, images):
    for active, masks, labels in images:
        shown = ShownConcepts.of(torch.from_numpy(labels))
        overlaps.add(torch.from_numpy(active), torch.from_numpy(masks), shown)
    return overlaps


def iou_by_loops(images):
    common, union = np.zeros((6, 4)), np.zeros((6, 4))
    for active, masks, labels in images:
        for unit in range(6):
            mask = masks[list(active).index(unit)] if unit in active else np.zeros(30, dtype=bool)
            for concept in range(4):
                shown = (labels == concept + 1).any(axis=0)
                same_category = np.flatnonzero(CATEGORY_OF[concept] == CATEGORY_OF) + 1
                if np.isin(labels, same_category).any():
                    common[unit, concept] += (mask & shown).sum()
                    union[unit, concept] += (mask | shown).sum()
    return common / union


def test_overlaps_are_those_of_plain_loops():
    images = list(random_images(40, seed=6))
    overlaps = add_all(Overlaps(6, CATEGORY_OF), images)
    assert np.allclose(overlaps.iou(), iou_by_loops(images), rtol=1e-12)


def test_overlaps_merge_and_are_written_down():
    images = list(random_images(30, seed=7))
    first = add_all(Overlaps(6, CATEGORY_OF), images[:11])
    first = Overlaps.from_state(through_a_file(first.state()))
    first.merge(add_all(Overlaps(6, CATEGORY_OF), images[11:]))
    assert np.array_equal(first.iou(), add_all(Overlaps(6, CATEGORY_OF), images).iou())
    with pytest.raises(InputError, match="other units or concepts"):
        first.merge(Overlaps(6, [0, 1, 1, 2]))


def test_nothing_seen_has_no_overlap():
    assert not Overlaps(2, [0, 1]).iou().any()
