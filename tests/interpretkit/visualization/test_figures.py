import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from interpretkit.visualization import colour_of, distributions, heatmap, latent_map, marker_of, parity, style
from interpretkit.visualization.figures import MAX_CLASSES, training_curves


def texts(figure: Figure) -> str:
    figure.canvas.draw()
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        found += [axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()]
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    found += [text.get_text() for legend in legends if legend is not None for text in legend.get_texts()]
    return "\n".join(found)


def test_parity_shows_the_errors_and_the_residuals():
    # MAE 0.2, RMSE √0.05 = 0.224, R² = 1 − 0.2/5 = 0.96, by hand.
    figure = parity([0, 1, 2, 3], [0.1, 0.9, 2.3, 2.7], groups=["a", "a", "b", "b"])
    shown = texts(figure)
    assert "MAE 0.2 eV" in shown
    assert "RMSE 0.224 eV" in shown
    assert "R² 0.96" in shown
    residuals = np.concatenate([points.get_offsets()[:, 1] for points in figure.axes[1].collections])  # type: ignore
    np.testing.assert_allclose(sorted(residuals), [-0.3, -0.1, 0.1, 0.3])
    assert "a\nb" in shown


def test_parity_of_one_value_and_with_uncertainty():
    texts(parity([1.0], [1.0], uncertainty=[0.1]))
    with pytest.raises(ValueError, match="'measured': 2, 'predicted': 1"):
        parity([1, 2], [1])
    with pytest.raises(ValueError, match="above 0"):
        parity([], [])


def test_distributions_count_the_share_in_the_window():
    shown = texts(distributions({"sites": [0.0, 0.1, 0.5, np.nan, 0.9]}, window=(0.0, 0.2)))
    assert "sites (n = 4), 50% in the window" in shown
    texts(distributions({"constant": [1.0, 1.0]}))
    with pytest.raises(ValueError, match="no finite value"):
        distributions({"empty": [np.nan]})
    with pytest.raises(ValueError, match="at least one"):
        distributions({})


def test_a_map_takes_numbers_classes_or_no_colour():
    points = np.random.default_rng(0).normal(size=(60, 2))
    assert len(latent_map(points, np.arange(60), label="energy (eV)").axes) == 2
    assert "111" in texts(latent_map(points, ["111", "100"] * 30))
    assert len(latent_map(points).axes) == 1
    many = [f"class {i % 30}" for i in range(60)]
    assert f"other ({60 - 2 * MAX_CLASSES})" in texts(latent_map(points, many))
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        latent_map(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="60 colours"):
        latent_map(points, [1, 2])


def test_training_curves_take_rows_or_columns():
    rows = [{"epoch": 1, "train_loss": 1.0, "error": 2.0, "seconds": 3.0}, {"epoch": 2, "train_loss": 0.5}]
    figure = training_curves(rows, best_epoch=2)
    assert "train loss\nerror\nchosen: epoch 2" in texts(figure)
    assert "seconds" not in texts(figure)
    assert "a" in texts(training_curves({"a": [1.0, 0.1]}, logarithmic=True))


def test_a_heatmap_writes_its_numbers_and_centres_its_colours():
    figure = heatmap([[1.0, -3.0], [np.nan, 2.0]], ["r1", "r2"], ["c1", "c2"], centre=0)
    assert "-3" in texts(figure)
    assert "nan" not in texts(figure)
    assert figure.axes[0].images[0].get_clim() == (-3, 3)
    shown = texts(heatmap([[0.6543, -0.1], [0.00004, np.nan]], ["r1", "r2"], ["c1", "c2"]))
    assert "0.654" in shown
    assert "-0.100" in shown
    assert "0.000" in shown
    assert {"0.97", "-0.10"} <= set(texts(heatmap([[0.97, -0.1]], ["r"], ["c1", "c2"])).split("\n"))
    with pytest.raises(ValueError, match="2 by 1"):
        heatmap([[1, 2]], ["a", "b"], ["c"])


def test_the_style_leaves_the_users_settings_alone():
    before = dict(matplotlib.rcParams)
    backend = matplotlib.rcParams._get("backend")  # type: ignore[attr-defined]
    with style():
        assert not matplotlib.rcParams["axes.spines.top"]
    parity([0, 1], [0, 1])
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.rcParams._get("backend") == backend  # type: ignore[attr-defined]


def test_classes_beyond_the_colours_differ_by_marker():
    assert len({(colour_of(i), marker_of(i)) for i in range(MAX_CLASSES)}) == MAX_CLASSES


HOSTILE_NAMES = ["cost $ and price $", "$\\frac{$", "caf\udce9 \ud800", "{_^\\", "$x$", "a\nb"]


def test_every_name_is_drawn_as_it_stands():
    """Names come from users' files: neither formulas nor what no font takes may stop a figure."""
    count = len(HOSTILE_NAMES)
    values = np.arange(count * count, dtype=float).reshape(count, count)
    drawn = [
        heatmap(values, HOSTILE_NAMES, HOSTILE_NAMES, label="$a", title="$\\bad$"),
        parity(range(count), range(count), groups=HOSTILE_NAMES, quantity="$\\x$", title="$$ $"),
        distributions({name: [0.0, 1.0] for name in HOSTILE_NAMES}, title=HOSTILE_NAMES[2]),
        latent_map(values[:, :2], HOSTILE_NAMES, label="$\\y$", title="\udcff"),
        training_curves({f"train_{name}": [1.0, 0.5] for name in HOSTILE_NAMES}),
    ]
    for figure in drawn:
        figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")
        # As text of the vector file, which shows what is drawn and not what the labels are.
        page = io.BytesIO()
        with style():
            figure.savefig(page, format="svg")
        assert ">$x$" in page.getvalue().decode() or figure is drawn[-1]


def test_powers_of_ten_stay_typeset():
    figure = training_curves({"train_loss": [1e-3, 1.0, 1e4]}, logarithmic=True)
    page = io.BytesIO()
    with style():
        figure.savefig(page, format="svg")
    assert ">$" not in page.getvalue().decode()
    assert any("mathdefault" in t.get_text() for axes in figure.axes for t in axes.get_yticklabels())
