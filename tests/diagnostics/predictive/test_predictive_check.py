from __future__ import annotations

import importlib
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    CHECK_STATISTICS,
    OfSeries,
    PredictiveCheck,
    autocorrelation,
    ecdf_band,
    pit,
    predictive_check,
)
from pyro_vdn.errors import InputError


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def checks_of_a_conjugate_model(sets: int, draws: int = 99) -> dict[str, np.ndarray]:
    """Return p-values of fresh series, given the exact posterior of a Normal mean."""
    past, fresh = 20, 30
    prior = normal(sets, seed=1)  # mu ~ Normal(0, 1), y ~ Normal(mu, 1)
    seen = prior[:, None] + normal(sets, past, seed=2)
    y = prior[:, None] + normal(sets, fresh, seed=3)
    posterior = seen.sum(1) / (past + 1) + normal(draws, sets, seed=4) / (past + 1) ** 0.5
    replicated = posterior[..., None] + normal(draws, sets, fresh, seed=5)
    names = ["mean", "sd", "q95", "autocorrelation", "roughness"]
    # Each row is a data set of its own: the p-value of a row is that of its data set.
    check = predictive_check(replicated[..., None], y[..., None], statistics=names, per="row")
    return dict(zip(names, check.p_value.numpy(), strict=True))


def test_p_values_on_held_out_data_of_a_true_model_are_uniform() -> None:
    for name, values in checks_of_a_conjugate_model(300).items():
        assert ecdf_band(300, level=0.99).inside(values), name


def test_memory_that_the_model_lacks_is_caught() -> None:
    noise, y = normal(40, 50), torch.zeros(40, 50, 1, dtype=torch.float64)
    for t in range(50):
        y[:, t, 0] = 0.7 * (y[:, t - 1, 0] if t else 0.0) + noise[:, t]
    independent = y.std() * normal(300, 40, 50, 1, seed=1)
    check = predictive_check(independent, y)
    found = dict(zip(check.names, check.p_value[:, 0].tolist(), strict=True))
    assert found["autocorrelation"] == pytest.approx(0.5 / 301)
    assert found["roughness"] == pytest.approx(1 - 0.5 / 301)
    assert 0.2 < found["sd"] < 0.8
    assert abs(float(check.distance[check.names.index("autocorrelation"), 0])) > 10


def test_double_use_of_data_makes_p_values_crowd_around_one_half() -> None:
    y = normal(200, 20, seed=1)
    mean = y.mean(1) + normal(199, 200, seed=2) / 20**0.5  # posterior under a flat prior
    replicated = mean[..., None] + normal(199, 200, 20, seed=3)
    values = predictive_check(replicated, y, statistics=["mean"], per="row").p_value
    assert float(values.std()) < 0.05 < 12**-0.5  # uniform values have the latter


def test_p_value_is_its_definition() -> None:
    replicated = torch.tensor([0.0, 1.0, 1.0, 2.0, torch.nan])[:, None, None]
    check = PredictiveCheck(("a",), ("all",), torch.tensor([[1.0]]), replicated)
    # one above, two ties, four known
    torch.testing.assert_close(check.p_value, torch.tensor([[(1 + 3 / 2) / 5]]))
    torch.testing.assert_close(check.two_sided, torch.tensor([[1.0]]))
    torch.testing.assert_close(check.distance, torch.tensor([[0.0]]))


def test_p_value_is_one_less_the_mid_rank_transform() -> None:
    draws, y = normal(30, 8).round(), normal(8, seed=1).round()
    check = predictive_check(draws, y, statistics=["mean"], per="row")
    torch.testing.assert_close(check.p_value[0], 1 - pit(draws, y, randomised=False))


@pytest.mark.parametrize("per", ["all", "group", "horizon", "output", "row"])
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "with gaps"])
def test_places_are_what_loops_over_them_give(per: str, missing: bool) -> None:
    y, draws, groups = normal(6, 5, 2), normal(7, 6, 5, 2, seed=1), ["b", "a", "b", "b", "a", "b"]
    if missing:
        y[0, 2, 0] = y[3, :, 1] = torch.nan
    member = {label: [at for at, own in enumerate(groups) if own == label] for label in "ab"}
    cuts = {
        "all": {"all": lambda s: s},
        "group": {label: lambda s, own=own: s[:, own] for label, own in member.items()},
        "horizon": {at + 1: lambda s, at=at: s[:, :, at : at + 1] for at in range(5)},
        "output": {at: lambda s, at=at: s[..., at : at + 1] for at in range(2)},
        "row": {at: lambda s, at=at: s[:, at : at + 1] for at in range(6)},
    }[per]
    check = predictive_check(
        draws,
        y,
        per=per,
        groups=groups if per == "group" else None,  # type: ignore[arg-type]
    )
    assert check.places == tuple(cuts)
    assert ("roughness" in check.names) == (per != "horizon")
    assert "zero_share" not in check.names
    hidden = draws.masked_fill(y.isnan(), torch.nan)
    for j, cut in enumerate(cuts.values()):
        for i, name in enumerate(check.names):
            statistic = CHECK_STATISTICS[name]
            for sets, found in ((hidden, check.replicated), (y[None], check.observed[None])):
                part = cut(sets)
                if isinstance(statistic, OfSeries):
                    expected = statistic(part.transpose(-1, -2)).flatten(1).nanmean(1)
                else:
                    expected = statistic(part.flatten(1))
                torch.testing.assert_close(found[:, i, j], expected, equal_nan=True)


def test_groups_alone_ask_for_groups() -> None:
    check = predictive_check(normal(9, 4), normal(4), groups=[2020, 2021, 2020, 2021])
    assert (check.per, check.places) == ("group", (2020, 2021))


def test_labels_in_a_tensor_are_those_of_a_list() -> None:
    labels = [3, 1, 3, 1]
    check = predictive_check(normal(9, 4), normal(4), groups=torch.tensor(labels))
    assert check.places == predictive_check(normal(9, 4), normal(4), groups=labels).places == (1, 3)


@pytest.mark.parametrize(
    ("labels", "places"),
    [
        (["7 m", "3.5 m", "10 m", "7 m"], ("3.5 m", "7 m", "10 m")),
        ([10, 9.5, -2, 10], (-2.0, 9.5, 10.0)),
        (["-2 °C", "-10 °C", "3 °C", "low"], ("-10 °C", "-2 °C", "3 °C", "low")),
        (["2021-02", "2020-11", "2020-02", "2020"], ("2020", "2020-02", "2020-11", "2021-02")),
        ([True, False, True, True], (False, True)),
        (np.array(["b", None, "a", "b"], dtype=object), ("None", "a", "b")),
    ],
    ids=["units", "numbers", "signs", "months", "truths", "objects"],
)
def test_places_are_sorted_numbers_by_size(labels: object, places: tuple[object, ...]) -> None:
    y, draws = torch.arange(4.0), normal(9, 4)
    check = predictive_check(draws, y, statistics=["mean"], groups=labels)  # type: ignore[arg-type]
    assert tuple(None if it == "None" else it for it in places) == check.places
    given = [str(it) for it in np.asarray(labels).tolist()]
    for place, mean in zip(check.places, check.observed[0].tolist(), strict=True):
        assert mean == np.mean([at for at, label in enumerate(given) if label == str(place)])


@pytest.mark.parametrize("finest", ["steps", "values"])
def test_labels_of_steps_and_of_values_are_what_loops_over_them_give(finest: str) -> None:
    y, draws = normal(6, 5, 2), normal(7, 6, 5, 2, seed=1)
    y[0, 2, 0] = torch.nan
    labels = torch.arange(30).reshape(6, 5) % 4
    if finest == "values":
        labels = torch.stack([labels, labels.flip(0)], -1)
    check = predictive_check(draws, y, groups=labels)
    assert (check.per, check.places) == ("group", (0, 1, 2, 3))
    assert {"sd", "q95"} <= set(check.names)
    assert "autocorrelation" not in check.names
    every = labels if finest == "values" else labels[..., None].expand(6, 5, 2)
    for at, name in enumerate(check.names):
        for place in range(4):
            own = torch.stack([one[every == place] for one in draws])
            own = own.masked_fill(y[every == place].isnan(), torch.nan)
            torch.testing.assert_close(check.replicated[:, at, place], CHECK_STATISTICS[name](own))
            seen = CHECK_STATISTICS[name](y[every == place])
            torch.testing.assert_close(check.observed[at, place], seen)


def test_steps_without_a_dimension_of_their_own_are_outputs() -> None:
    y, draws = normal(6, 5), normal(30, 6, 5, seed=1)
    assert predictive_check(draws, y, per="output").places == tuple(range(5))
    assert "roughness" not in predictive_check(draws, y).names
    assert predictive_check(draws[..., None], y[..., None], per="horizon").places[-1] == 5
    assert "`draws[..., None]`" in str(predictive_check.__doc__).split("Args:")[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.long])
def test_statistics_of_draws_and_data_of_any_dtype_are_comparable(dtype: torch.dtype) -> None:
    y = torch.tensor([0, 1, 0, 2, 0, 0, 1], dtype=torch.float64)
    check = predictive_check(y.expand(30, 7).to(dtype), y, statistics=["mean", "median", "max"])
    assert (check.p_value == 0.5).all()  # the same data tie, though a mean of 4 / 7 is rounded
    half = predictive_check(normal(300, 50).to(dtype), normal(50, seed=1).to(dtype))
    assert half.p_value.dtype == (torch.float64 if dtype == torch.long else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("draws", "level"), [(20, 0.95), (10, 0.9), (199, 0.99)])
def test_data_beyond_all_draws_are_outside(draws: int, level: float, dtype: torch.dtype) -> None:
    check = predictive_check(normal(draws, 3).to(dtype), normal(3) + 99, statistics=["mean"])
    assert check.outside(level).all()
    fewer = predictive_check(normal(round(1 / (1 - level)) - 1, 3).to(dtype), normal(3) + 99)
    with pytest.raises(InputError, match=f"at least {round(1 / (1 - level))} for level"):
        fewer.outside(level)


def test_counts_are_checked_for_zeros() -> None:
    y = torch.poisson(torch.full((200, 1), 2.0), torch.Generator().manual_seed(0)).long()
    y[::2] = 0  # inflated
    draws = torch.poisson(torch.full((300, 200, 1), 1.0), torch.Generator().manual_seed(1)).long()
    check = predictive_check(draws, y)
    assert float(check.p_value[check.names.index("zero_share"), 0]) < 0.01
    assert "autocorrelation" not in check.names
    assert check.observed.dtype == torch.float64


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, y = normal(11, 5, 6, 1), normal(5, 6, 1, seed=1)
    whole = predictive_check(draws, y)
    module = importlib.import_module("pyro_vdn.diagnostics.predictive.predictive_check")
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 100)
    torch.testing.assert_close(predictive_check(draws, y).replicated, whole.replicated)


def test_users_bring_their_own_statistics() -> None:
    y, draws = normal(3, 9, 1), normal(5, 3, 9, 1, seed=1)
    own = {"range": lambda s: s.amax(-1) - s.amin(-1), "lag 2": OfSeries(lag_two)}
    check = predictive_check(draws, y, statistics=own)
    assert check.names == ("range", "lag 2")
    torch.testing.assert_close(check.observed[0, 0], y.max() - y.min())
    torch.testing.assert_close(check.observed[1, 0], autocorrelation(y[..., 0], 2).mean())


def test_names_and_functions_may_be_mixed() -> None:
    y, draws = normal(3, 9, 1), normal(5, 3, 9, 1, seed=1)
    listed = predictive_check(draws, y, statistics=["sd", lag_two, OfSeries(lag_two_by_series)])
    assert listed.names == ("sd", "lag_two", "lag_two_by_series")
    torch.testing.assert_close(listed.observed[0, 0], y.std())
    mapped = predictive_check(draws, y, statistics={"spread": "sd", "memory": "autocorrelation"})
    assert mapped.names == ("spread", "memory")
    torch.testing.assert_close(mapped.observed[0, 0], y.std())
    torch.testing.assert_close(mapped.observed[1, 0], autocorrelation(y[..., 0]).mean())


def lag_two_by_series(series: Tensor) -> Tensor:
    return autocorrelation(series, 2)


def lag_two(series: Tensor) -> Tensor:
    return autocorrelation(series, 2)


def test_undefined_statistics_have_no_p_value() -> None:
    check = predictive_check(normal(50, 3), normal(3), statistics=["sd", "mean"], per="row")
    assert bool(check.p_value[0].isnan().all())
    assert not bool(check.p_value[1].isnan().any())
    assert not check.outside(0.9)[0].any()
    assert str(check).startswith("sd: undefined everywhere\nmean: ")


def test_p_values_are_never_written_as_0_or_1() -> None:
    replicated, y = normal(2000, 50), normal(50, seed=1)
    lines = [
        str(predictive_check(replicated, y + shift, statistics=["mean"])).splitlines()[1]
        for shift in (9.0, -9.0)
    ]
    assert [line.split("   ")[-1] for line in lines] == ["< 0.001  *", "> 0.999  *"]
    by_row = str(predictive_check(replicated, y - 9.0, statistics=["mean"], per="row"))
    assert by_row.endswith(": p > 0.999")


def test_the_table_and_arrays_hold_the_same_numbers() -> None:
    check = predictive_check(normal(50, 6, 2), normal(6, 2), statistics=["sd", "max"], per="output")
    table, arrays = check.table(), check.to_arrays()
    assert [(row["statistic"], row["output"]) for row in table] == [
        ("sd", 0),
        ("sd", 1),
        ("max", 0),
        ("max", 1),
    ]
    for column in ("observed", "p_value", "two_sided", "distance"):
        np.testing.assert_allclose([row[column] for row in table], arrays[column].ravel())
    mean = arrays["replicated"].mean(0)
    np.testing.assert_allclose([row["replicated_mean"] for row in table], mean.ravel())
    sd = arrays["replicated"].std(0, ddof=1)
    np.testing.assert_allclose([row["replicated_sd"] for row in table], sd.ravel())
    np.testing.assert_allclose(arrays["distance"], (arrays["observed"] - mean) / sd)


def test_the_text_marks_what_does_not_fit() -> None:
    replicated, y = normal(200, 50), normal(50, seed=1) + 1.0
    lines = str(predictive_check(replicated, y, statistics=["mean", "sd"])).splitlines()
    assert [line.endswith("*") for line in lines] == [False, True, False]
    assert lines[1].split()[-2] == "0.002"
    by_row = str(predictive_check(replicated, y * 0.0 + 9.0, statistics=["mean"], per="row"))
    assert by_row.startswith("mean: 50 of 50 with two-sided p < 0.05 (2.5 expected), farthest row ")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: predictive_check(normal(3, 1, 1, 1, 1), normal(1, 1, 1, 1)), r"observed: .*time"),
        (
            lambda: predictive_check(normal(3, 2), normal(3)),
            r"draws: .*\(draws, 3,\), got .*\(3, 2",
        ),
        (lambda: predictive_check(normal(0, 3), normal(3)), r"draws: .* got shape \(0, 3\)"),
        (lambda: predictive_check(normal(3, 3) / 0, normal(3)), r"draws: expected finite"),
        (lambda: predictive_check(normal(3, 3), normal(3) / 0), r"observed: expected finite"),
        (lambda: predictive_check(normal(3, 1), normal(1) * torch.nan), r"observed: .*one value"),
        (
            lambda: predictive_check(normal(3, 3), normal(3), statistics=["means"]),
            r"statistics: expected functions, or names among mean, sd, .* got 'means'",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), statistics=[]),
            r"statistics: expected at least one",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), statistics=["roughness"]),
            r"statistic 'roughness': expected series",
        ),
        (
            lambda: predictive_check(
                normal(3, 3, 4, 1), normal(3, 4, 1), statistics=["roughness"], per="horizon"
            ),
            r"statistic 'roughness': expected series",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), statistics={"sum": torch.sum}),
            r"statistic 'sum': expected a function that takes away .* got shape \(\)",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), per="step"),  # type: ignore[arg-type]
            r"per: expected one of all, .* got 'step'",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), per="group"),
            r"groups: .* got none and",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), per="row", groups=[1, 2, 3]),
            r"groups: .* got labels and per='row'",
        ),
        (
            lambda: predictive_check(normal(3, 3, 4, 1), normal(3, 4, 1), groups=[1]),
            r"groups: expected labels of shape \(3,\) or \(3, 4\) or \(3, 4, 1\), .* \(1,\)",
        ),
        (
            lambda: predictive_check(
                normal(3, 3, 4, 1),
                normal(3, 4, 1),
                statistics=["roughness"],
                groups=torch.zeros(3, 4),
            ),
            r"statistic 'roughness': expected series: .* or by labels of rows",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), statistics=["sd", lambda v: v]),
            r"statistics: expected functions with a name of their own .* got <lambda>",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), statistics=[partial(torch.sum)]),
            r"statistics: expected functions with a name of their own .* got functools.partial",
        ),
        (
            lambda: predictive_check(
                normal(3, 3, 4, 1), normal(3, 4, 1), statistics=[lag_two, OfSeries(lag_two)]
            ),
            r"statistics: expected functions with a name of their own .* got lag_two",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), statistics={"a": "means"}),
            r"statistics: expected functions, or names among mean, sd, .* got 'means'",
        ),
        (
            lambda: predictive_check(normal(3, 3), normal(3), per="horizon"),
            r"observed: expected shape \(rows, time, outputs\) to check each step",
        ),
        (
            lambda: predictive_check(normal(9, 3), normal(3)).outside(0.95),
            r"draws: expected at least 20 for level 0.95, got 9",
        ),
        (
            lambda: predictive_check(normal(9, 3), normal(3)).outside(1.5),
            r"level: .* got 1.5",
        ),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()
