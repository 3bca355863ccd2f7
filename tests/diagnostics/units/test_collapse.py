from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyro_vdn.diagnostics import (
    CollapseMode,
    CollapseThresholds,
    UnitStatistics,
    arrays_to_arviz,
    collapse_report,
    load_netcdf,
    save_netcdf,
)
from pyro_vdn.errors import InputError

JUST = 1e-9
MODES = {mode.value: mode for mode in CollapseMode}


def called(statistics: UnitStatistics, **thresholds: Any) -> list[str]:
    report = collapse_report(statistics, thresholds=CollapseThresholds(**thresholds))
    return [call.mode.value for call in report.calls]


# Each row: what is given of one unit, and what it is called; thresholds themselves are living.
BOUNDARIES: list[tuple[dict[str, Any], str]] = [
    ({}, "living"),
    ({"kl": 1e-2}, "living"),
    ({"kl": 1e-2 - JUST}, "posterior collapse"),
    ({"kl": 0.0}, "posterior collapse"),
    ({"information": 1e-3, "scale_variation": 0.0}, "living"),
    ({"information": 0.0, "scale_variation": 1e-2}, "living"),
    ({"information": 1e-3 - JUST, "scale_variation": 1e-2 - JUST}, "posterior collapse"),
    ({"information": 0.0, "scale_variation": 0.0, "kl": 2.0}, "posterior collapse"),
    ({"information": 0.0, "scale_variation": 0.0, "kl": 2.0, "rows": 1}, "living"),
    ({"scale": 0.05, "kl": 2.5}, "living"),
    ({"scale": 0.05 - JUST, "kl": 2.5}, "deterministic collapse"),
    ({"scale": 0.025, "prior_scale": 0.5, "kl": 2.5}, "living"),
    ({"scale": 0.05, "prior_scale": 1.1, "kl": 2.5}, "deterministic collapse"),
    ({"scale": 3.0, "kl": 2.9}, "living"),
    ({"scale": 3.0 + JUST, "kl": 2.9}, "variance blow-up"),
    ({"scale": 3.1, "prior_scale": 2.0}, "living"),
    ({"mu2": 10.0, "kl": 9.0}, "living"),
    ({"mu2": 10.0 + JUST, "kl": 9.0}, "energy blow-up"),
    ({"mu2": 50.0, "prior_scale": 3.0, "kl": 9.0, "scale": 1.0}, "living"),
    ({"mu2": 900.0, "mu2_about_prior": 9.0}, "living"),  # a prior that is itself far from zero
    ({"mu2": 0.4, "mu2_about_prior": 11.0}, "energy blow-up"),
    ({"mu2": 0.4, "mu2_about_prior": 11.0, "prior_scale": 2.0, "scale": 1.0}, "living"),
    ({"mu2": 0.8, "band_low": 0.1, "band_high": 0.2}, "living"),
    ({"mu2": 0.8 + JUST, "band_low": 0.1, "band_high": 0.2}, "energy blow-up"),
    ({"mu2": 30.0, "kl": 15.0, "band_low": 5.0, "band_high": 10.0}, "living"),
    ({"use": 1e-3, "use_error": 0.0}, "living"),
    ({"use": 1e-3 - JUST, "use_error": 0.0}, "ignored"),
    ({"use": -1e-3 + JUST, "use_error": 0.0}, "ignored"),
    ({"use": -0.1, "use_error": 0.0}, "living"),
    ({"use": 2e-4, "use_error": 3e-4}, "ignored"),
    ({"use": 2e-4, "use_error": 4e-4}, "living"),  # 2e-4 + 8e-4 is the threshold
    ({"use": 0.0, "use_error": 0.1}, "living"),
]


@pytest.mark.parametrize(("given", "mode"), BOUNDARIES, ids=str)
def test_modes_begin_beyond_their_thresholds(given: Any, mode: str, table: Any) -> None:
    statistics = table(**given)
    assert called(statistics) == [mode]
    (call,) = collapse_report(statistics).calls
    assert (call.symptoms == ()) == (mode == "living")


@pytest.mark.parametrize(
    ("thresholds", "given", "mode"),
    [
        ({"kl": 1e-4}, {"kl": 1e-3}, "living"),
        ({"information": 0.1}, {"information": 0.05, "scale_variation": 0.0}, "posterior collapse"),
        ({"scale_variation": 1.0}, {"information": 0.0}, "posterior collapse"),
        ({"scale_floor": 0.7}, {}, "deterministic collapse"),
        ({"scale_ceiling": 0.5}, {}, "variance blow-up"),
        ({"energy": 0.3}, {}, "energy blow-up"),
        ({"band_excess": 1.0}, {"band_low": 0.1, "band_high": 0.2}, "energy blow-up"),
        ({"use": 1.0}, {"use": 0.5, "use_error": 0.1}, "ignored"),
    ],
    ids=str,
)
def test_every_threshold_can_be_moved(thresholds: Any, given: Any, mode: str, table: Any) -> None:
    assert called(table(**given)) != called(table(**given), **thresholds)
    assert called(table(**given), **thresholds) == [mode]


def test_the_first_symptom_names_the_unit_and_all_are_evidence(table: Any) -> None:
    silent = {"information": 0.0, "scale_variation": 0.0, "use": 0.0, "use_error": 0.0}
    ill = table(scale=[5.0, 0.01, 0.01, 0.01], mu2=[99.0, 99.0, 99.0, 0.1], kl=9.0, **silent)
    ill = collapse_report(
        UnitStatistics(**{**vars(ill), "information": np.array([0.0, 0.0, 1.0, 1.0])})
    )
    assert [[mode.value for mode in call.symptoms] for call in ill.calls] == [
        ["variance blow-up", "posterior collapse", "energy blow-up", "ignored"],
        ["posterior collapse", "energy blow-up", "deterministic collapse", "ignored"],
        ["energy blow-up", "deterministic collapse", "ignored"],
        ["deterministic collapse", "ignored"],
    ]
    assert all(call.mode == call.symptoms[0] for call in ill.calls)
    assert all(call.evidence.count(";") == len(call.symptoms) - 1 for call in ill.calls)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"kl": 0.0031}, "KL 0.0031 nats, under 0.01"),
        (
            {"kl": 2.0, "information": 2e-5, "scale_variation": 0.0},
            "same posterior for every input: information 2e-05 nats, under 0.001, at a KL of 2",
        ),
        ({"scale": 0.021, "prior_scale": 0.5}, "scale 0.042 of the prior's, under 0.05"),
        ({"scale": 4.0}, "scale 4 times the prior's, above 3"),
        ({"mu2": 40.0, "kl": 9.0, "prior_scale": 1.0}, "mu2 40 about the prior's mean, 40 times"),
        (
            {"mu2": 2.0, "band_low": 0.1, "band_high": 0.2},
            "mu2 2, 10 times its band's 0.2, above 4",
        ),
        ({"use": 2e-4, "use_error": 1e-5}, "use 0.0002 ± 1e-05 nats a row, surely under 0.001"),
        (
            {"use": 0.25, "use_error": 0.02},
            "KL 0.5 nats, scale 0.6 of the prior's, mu2 0.4, use 0.25",
        ),
    ],
    ids=str,
)
def test_evidence_has_the_number_and_the_threshold(given: Any, text: str, table: Any) -> None:
    assert text in collapse_report(table(**given)).calls[0].evidence


@pytest.fixture
def report(table: Any) -> Any:
    first = table(
        kl=[0.5, 0.001, 0.3, 3.0, 0.6, 0.7],
        scale=[0.6, 1.0, 0.6, 0.01, 0.6, 0.6],
        use=[0.2, 0.0, 1e-5, 0.3, 1e-3, -0.2],
        use_error=[0.01, 0.0, 1e-6, 0.02, 0.01, 0.01],
        band_low=0.1,
        band_high=[0.4, 0.4, 0.4, 0.4, 0.4, 0.2],
    )
    return collapse_report({"a": first, "b.1": table(kl=[1e-5, 2.0], rows=90)})


def test_counts_and_units(report: Any) -> None:
    assert list(report.counts()) == list(CollapseMode)
    assert {mode.value: count for mode, count in report.counts().items() if count} == {
        "living": 4,
        "posterior collapse": 2,
        "deterministic collapse": 1,
        "ignored": 1,
    }
    assert report.units("posterior collapse") == {"a": [1], "b.1": [0]}
    assert report.units(CollapseMode.IGNORED) == {"a": [2]}
    assert report.units("energy blow-up") == {}
    assert report.costly() == {"a": [5]}
    assert {path: mask.nonzero()[0].tolist() for path, mask in report.undecided().items()} == {
        "a": [4],
        "b.1": [],
    }
    assert report.calls[4].evidence.endswith("(undecided)")
    assert report.typical("living").unit == 5
    assert report.typical("variance blow-up") is None


def test_undecided_are_living_units_and_stand_for_no_decided_one(table: Any) -> None:
    noisy = {"use": [0.0, 0.0, 0.2, 0.0], "use_error": [1.0, 1.0, 0.0, 1.0]}
    report = collapse_report(table(kl=[0.001, 0.5, 0.6, 0.7], **noisy))
    assert report.undecided()[""].tolist() == [False, True, False, True]
    assert "the use of 2 units is too noisy" in str(report)
    assert report.typical("living").unit == 2
    assert report.costly() == {}
    everyone = collapse_report(table(kl=[0.4, 0.5, 0.6], use=0.0, use_error=1.0))
    assert everyone.typical("living").unit == 1


def test_what_is_unknown_of_a_prior_without_variance_is_said(table: Any) -> None:
    s = table(kl=[0.5, 0.5], prior_scale=[np.nan, 1.0], contraction=[np.nan, 0.6])
    report = collapse_report({"a": s})
    text = " ".join(str(report).split())
    assert "The prior of 1 units of a has no finite variance: ratios to it are unknown" in text
    assert "scale 0.6, the prior's not finite, mu2 0.4" in report.calls[0].evidence
    assert "no finite variance" not in str(collapse_report(table()))


def test_layers_are_named_in_attributes_as_they_are(table: Any) -> None:
    assert collapse_report({"a_": table()}).to_xarray().attrs["rows_a_"] == 100
    assert collapse_report(table()).to_xarray().attrs["rows"] == 100


def test_the_table_is_compact_and_complete(report: Any) -> None:
    text = str(report)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 96
    assert lines[0] == "8 units in 2 layers over 90 to 100 rows"
    assert lines[1].split() == ["living", "4", "50.0%"]
    assert "blow-up" not in text
    assert "typical: a[3], scale 0.01 of the prior's, under 0.05" in text
    assert "try: Homeostat or Projection to rescale the unit" in text
    for note in (
        "Use of b.1 was not measured, so no unit of it can be called ignored",
        "Undecided: the use of 1 units is too noisy",
        "Costly: 1 living units have a use that is surely negative",
        "Band of a: 0.0% of units below, 83.3% within, 16.7% above.",
    ):
        assert note in text


def test_a_thousand_units_make_no_longer_a_table(table: Any) -> None:
    few, many = (str(collapse_report(table(kl=[0.5, 0.0] * n))) for n in (1, 500))
    assert len(many.splitlines()) == len(few.splitlines())
    assert many.startswith("1000 units over 100 rows")
    assert "Use was not measured" in many


@pytest.mark.parametrize("mode", [mode for mode in CollapseMode if mode is not CollapseMode.LIVING])
def test_every_illness_has_a_remedy(mode: CollapseMode) -> None:
    controls = (
        "PersistenceShare",
        "Thermostat",
        "FreeBits",
        "ScaleGuard",
        "EnergyBand",
        "Homeostat",
        "Projection",
    )
    assert any(control in mode.remedy for control in controls)
    assert str(mode) == mode.value


def test_rows_hold_call_remedy_and_numbers(report: Any) -> None:
    rows = report.to_rows()
    assert [(row["layer"], row["unit"]) for row in rows[5:]] == [("a", 5), ("b.1", 0), ("b.1", 1)]
    assert rows[3]["mode"] == "deterministic collapse"
    assert "ScaleGuard" in rows[3]["remedy"]
    assert rows[3]["kl"] == 3.0
    assert "use" not in rows[7]


def test_xarray_has_named_coordinates(report: Any, tmp_path: Any) -> None:
    data = report.to_xarray()
    assert dict(data.sizes) == {"unit": 8}
    assert data["kl"].sel(unit="b.1[1]").item() == 2.0
    assert data.where(data["mode"] == "ignored", drop=True)["index"].values.tolist() == [2]
    assert data.groupby("layer").mean()["kl"].sel(layer="b.1").item() == pytest.approx(1.000005)
    assert np.isnan(data["use"].sel(unit="b.1[0]"))
    assert not np.isnan(data["use"].sel(unit="a[0]"))
    assert (data.attrs["threshold_kl"], data.attrs["rows_b.1"]) == (0.01, 90)
    variables = {name: data[name].values for name in data.data_vars}
    held = arrays_to_arviz(
        {"unit_stats": variables},
        dims={name: ["unit"] for name in variables},
        coords={"unit": data["unit"].values},
    )
    save_netcdf(held, tmp_path / "units.nc")
    kept = load_netcdf(tmp_path / "units.nc")["unit_stats"]
    assert str(kept["evidence"].sel(unit="a[1]").item()).startswith("KL 0.001")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda s: collapse_report({}), "statistics: expected at least one layer, got none"),
        (lambda s: collapse_report(s).units("dead"), "mode: expected one of .* got 'dead'"),
        (lambda s: CollapseThresholds(kl=0.0), "kl: expected a positive threshold, got 0.0"),
        (lambda s: CollapseThresholds(use=-1.0), "use: expected a positive threshold, got -1.0"),
    ],
)
def test_bad_input_is_refused(call: Any, text: str, table: Any) -> None:
    with pytest.raises(InputError, match=text):
        call(table())
