import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from alchemy.quant.logistic import auc, fit_isotonic, fit_logistic, log_loss, sigmoid


def labels(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (rows, columns))
    return x, (rng.random(rows) < sigmoid(x @ rng.normal(0, 1, columns) - 0.7)).astype(float)


@pytest.mark.parametrize("penalty", [0.3, 10.0])
@pytest.mark.parametrize(("rows", "columns"), [(300, 4), (40, 60)])
def test_the_regression_is_the_one_of_sklearn(penalty: float, rows: int, columns: int) -> None:
    x, y = labels(1, rows, columns)
    weights, intercept = fit_logistic(x, y, penalty)
    oracle = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(weights, oracle.coef_[0], atol=1e-4)
    assert intercept == pytest.approx(oracle.intercept_[0], abs=1e-4)


def test_labels_of_one_kind_end_in_a_finite_intercept() -> None:
    x, _ = labels(2, 30, 3)
    weights, intercept = fit_logistic(x, np.ones(30), 1.0)
    assert sigmoid(x @ weights + intercept).min() > 0.99
    assert np.isfinite(intercept)


def test_the_calibration_is_the_one_of_sklearn_with_ties_and_beyond_the_ends() -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 40, 300).astype(float)
    y = (rng.random(300) < scores / 40).astype(float)
    asked = np.linspace(-5, 45, 201)
    oracle = IsotonicRegression(y_min=1 / 302, y_max=301 / 302, out_of_bounds="clip").fit(scores, y)
    np.testing.assert_allclose(fit_isotonic(scores, y)(asked), oracle.predict(asked), atol=1e-9)


def test_a_calibration_never_is_certain() -> None:
    curve = fit_isotonic(np.arange(10.0), np.array([0.0] * 5 + [1.0] * 5))
    assert curve(np.array([-100.0, 100.0])) == pytest.approx([1 / 12, 11 / 12])


def test_the_area_under_the_curve_and_the_log_loss_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(4)
    scores, y, weights = rng.integers(0, 9, 200) / 10 + 0.05, rng.integers(0, 2, 200), rng.integers(0, 4, 200)
    assert auc(scores, y) == pytest.approx(roc_auc_score(y, scores))
    assert auc(scores, y, weights) == pytest.approx(roc_auc_score(y, scores, sample_weight=weights))
    assert log_loss(scores, y) == pytest.approx(sklearn_log_loss(y, scores))


def test_without_labels_of_one_kind_there_is_nothing_to_order() -> None:
    assert auc(np.array([0.1, 0.9]), np.ones(2)) == 0.5
