import pytest
import torch

from interpretkit.training import TensorBatches


def test_every_row_comes_once_an_epoch_and_the_order_follows_seed_and_epoch():
    rows = {"i": torch.arange(10)}
    batches = TensorBatches(rows, 4, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        sizes = [len(batch["i"]) for batch in batches]
        orders.append(torch.cat([batch["i"] for batch in batches]).tolist())
        assert sizes == [4, 4, 2]
        assert len(batches) == 3
    assert sorted(orders[0]) == list(range(10))
    assert orders[0] == orders[2] != orders[1]


def test_tensors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="'a': 3, 'b': 2"):
        TensorBatches({"a": torch.zeros(3), "b": torch.zeros(2)}, 2)
