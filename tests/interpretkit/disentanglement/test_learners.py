"""The fast learners and estimators against slower ones that others wrote."""

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.svm import LinearSVC

from interpretkit.disentanglement.binning import equal_mass_bins, equal_width_bins
from interpretkit.disentanglement.importance import concentration
from interpretkit.disentanglement.information import (
    Discretiser,
    JointCounts,
    neighbour_information_of_labels,
    neighbour_information_of_values,
)
from interpretkit.disentanglement.inputs import check_codes, check_factors
from interpretkit.disentanglement.learners import RocCurves, SortedCode, area_under_curve, softmax_regression
from interpretkit.disentanglement.prediction_scores import _Forest


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("classes", [2, 3, 9])
@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_support_vector_machines_agree_with_liblinear(rng, classes, scale):
    labels = np.minimum(rng.poisson(classes / 3, size=500), classes - 1)
    labels[:classes] = np.arange(classes)
    values = scale * (labels + 1.5 * rng.standard_normal(500) - 0.3)
    ours = SortedCode(values).separate(labels)
    # liblinear needs very many steps where the values are large.
    options: dict[str, Any] = {"dual": False, "tol": 1e-10, "max_iter": 100_000}
    theirs: Any = LinearSVC(C=0.01, class_weight="balanced", **options)
    theirs.fit(values[:, None], labels)
    skip = len(ours.offsets) - len(theirs.intercept_)
    assert np.allclose(ours.slopes[0, skip:], theirs.coef_[:, 0], rtol=1e-4, atol=1e-6)
    assert np.allclose(ours.offsets[skip:], theirs.intercept_, rtol=1e-4, atol=1e-6)
    assert (ours.predict(values[:, None]) == theirs.predict(values[:, None])).all()


def test_a_support_vector_machine_on_a_dead_code_is_finite(rng):
    model = SortedCode(np.full(100, 3.0)).separate(rng.integers(3, size=100))
    assert np.isfinite(model.slopes).all()
    assert np.isfinite(model.offsets).all()


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_softmax_regression_agrees_with_scikit_learn(rng, penalty):
    codes = rng.standard_normal((800, 4))
    labels = np.clip(np.rint(2 + codes[:, 0] + 0.5 * rng.standard_normal(800)), 0, 4).astype(int)
    ours = softmax_regression(codes, labels, penalty=penalty, max_iterations=500)
    theirs = LogisticRegression(C=1 / penalty, max_iter=500).fit(codes, labels)
    probabilities = theirs.predict_proba(codes)
    loss = -np.log(probabilities[np.arange(800), labels])
    assert ours.log_loss(codes, labels).mean() == pytest.approx(loss.mean(), abs=1e-4)
    assert (ours.predict(codes) == theirs.predict(codes)).mean() > 0.99


def test_areas_under_curves_with_ties_and_weights(rng):
    scores = np.round(rng.standard_normal((300, 3)), 1)
    positive = scores + rng.standard_normal((300, 3)) > 0.5
    weights = rng.integers(0, 4, size=300).astype(float)
    curves = RocCurves(scores, positive)
    for column in range(3):
        plain = roc_auc_score(positive[:, column], scores[:, column])
        weighted = roc_auc_score(positive[:, column], scores[:, column], sample_weight=weights)
        assert area_under_curve(scores, positive)[column] == pytest.approx(plain, abs=1e-12)
        assert curves.areas(weights)[column] == pytest.approx(weighted, abs=1e-12)
    assert np.isnan(area_under_curve(scores, np.ones_like(positive))).all()
    assert area_under_curve(np.zeros((300, 1)), positive[:, :1])[0] == pytest.approx(0.5)


@pytest.mark.parametrize("labels", [2, 7, 40])
def test_neighbour_information_of_labels_agrees_with_scikit_learn(rng, labels):
    classes = rng.integers(labels, size=3000)
    classes[0] = labels  # a label with a single row
    # With few rows to a label scikit-learn computes distances from squares, which loses digits.
    for values in (rng.standard_normal(3000), classes + 0.5 * rng.standard_normal(3000)):
        order = np.argsort(values)
        ours = neighbour_information_of_labels(values[order], classes[order], 10).mean()
        theirs = mutual_info_classif(values[:, None], classes, n_neighbors=10, random_state=0)[0]
        assert max(0, ours) == pytest.approx(theirs, abs=1e-6)


def test_neighbour_information_of_values(rng):
    first = rng.standard_normal(4000)
    second = 0.8 * first + 0.6 * rng.standard_normal(4000)
    ours = neighbour_information_of_values(first, second, 10).mean()
    assert ours == pytest.approx(-0.5 * np.log(1 - 0.64), abs=0.03)
    theirs = mutual_info_regression(first[:, None], second, n_neighbors=10, random_state=0)[0]
    # scikit-learn scales both before, which changes neighbours a little.
    assert ours == pytest.approx(theirs, abs=0.01)


def test_joint_counts_agree_with_scikit_learn(rng):
    codes = rng.standard_normal((700, 3))
    factors = np.column_stack([rng.integers(5, size=700), codes[:, 0] + rng.standard_normal(700)])
    counts = JointCounts(codes, check_factors(factors), Discretiser(12))
    information, entropies = counts.mutual_information()
    cells = [np.digitize(c, np.histogram(c, 12)[1][:-1]) for c in codes.T]
    classes = [factors[:, 0], np.digitize(factors[:, 1], np.histogram(factors[:, 1], 12)[1][:-1])]
    for code in range(3):
        for factor in range(2):
            expected = mutual_info_score(classes[factor], cells[code])
            assert information[code, factor] == pytest.approx(expected, abs=1e-9)
    assert entropies[0] == pytest.approx(mutual_info_score(classes[0], classes[0]), abs=1e-9)
    rows = rng.integers(700, size=700)
    weighted, _ = counts.mutual_information(np.bincount(rows, minlength=700).astype(float))
    expected = mutual_info_score(classes[0][rows], cells[1][rows])
    assert weighted[1, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("levels", [2, 3, 6, 11, 21, 31, 40, 41, 100])
@pytest.mark.parametrize("bins", [10, 20, 100])
def test_levels_on_the_edges_of_bins_belong_to_the_upper_one(rng, levels, bins):
    numbers = rng.permutation(np.repeat(np.arange(levels), 3))
    exact = np.minimum(numbers * bins // (levels - 1), bins - 1)
    # Whole numbers are as exact in a histogram.
    whole = np.histogram(numbers * bins, bins, (0, (levels - 1) * bins))[0]
    assert np.array_equal(np.bincount(exact, minlength=bins), whole)
    standard = (numbers - numbers.mean()) / numbers.std()
    for values in (numbers.astype(float), standard, 0.1 * numbers, 1e-9 * numbers - 7e-9, numbers / 3 + 1e6):
        assert np.array_equal(equal_width_bins(values[:, None], bins)[0], exact)


def test_bins_mind_the_steps_in_which_values_are_stored(rng):
    numbers = rng.permutation(np.repeat(np.arange(21), 3))
    single = (0.1 * numbers).astype(np.float32)
    codes = check_codes(np.column_stack([single, 1000 + single]))
    found = equal_width_bins(codes.standard, 20, codes.resolution)
    assert (found == np.minimum(numbers, 19)).all()


def test_bins_of_equal_mass_hold_equally_many_rows_and_keep_ties(rng):
    values = np.exp(3 * rng.standard_normal((1000, 1)))
    assert np.bincount(equal_mass_bins(values, 10)[0]).tolist() == [100] * 10
    tied = np.repeat([0.0, 1.0, 5.0], [10, 500, 90])[:, None]
    assert len(np.unique(equal_mass_bins(tied, 10)[0])) == 3


@pytest.mark.parametrize("classify", [True, False])
def test_importances_of_unweighted_rows_are_those_of_the_forest(rng, classify):
    codes = rng.standard_normal((600, 5))
    target = codes[:, 1] + 0.5 * codes[:, 3] + 0.3 * rng.standard_normal(600)
    kind: Any = ExtraTreesClassifier if classify else ExtraTreesRegressor
    if classify:
        target = np.digitize(target, [-1, 0, 1])
    model = kind(8, max_features=None, min_samples_leaf=5, random_state=0)
    model.fit(codes, target)
    forest = _Forest(model, codes, target, classify)
    assert np.allclose(forest.importance(np.ones(600)), model.feature_importances_, atol=1e-9)


def test_concentration_of_known_matrices():
    assert concentration(np.eye(4)) == (1.0, 1.0)
    assert concentration(np.ones((3, 4))) == pytest.approx((0, 0), abs=1e-12)
    assert concentration(np.zeros((3, 4))) == (0.0, 0.0)
    # Two codes for each factor: each code is pure, each factor split in two of four codes.
    disentanglement, completeness = concentration(np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=float))
    assert disentanglement == pytest.approx(1)
    assert completeness == pytest.approx(1 - np.log(2) / np.log(4))
