"""ArviZ's own summaries and plots work on an export, on both of its APIs."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression, StateSpace

from pyro_vdn.diagnostics import save_netcdf, to_arviz
from pyro_vdn.diagnostics.export._arviz import import_arviz

arviz = import_arviz()
ROOT = Path(__file__).parents[3]
ARVIZ1 = ROOT / ".venv" / "arviz1" / "bin" / "python"
IS_1 = int(arviz.__version__.split(".")[0]) >= 1
TIMES = ["2026-01", "2026-02", "2026-03"]


def export(**given: Any) -> Any:
    model, x = Regression(2, num_units=3), torch.randn(12, 2)
    y = x[:, :1] + torch.randn(12, 1)
    options = {"rows": [3, 1], "units": [0, 2], "num_samples": 40, **given}
    return to_arviz(model, NeuronGuide(model), (x, y), **options)


PLOTS: dict[str, Callable[[Any], Any]] = {
    "ppc": lambda data: arviz.plot_ppc(data, var_names=["y"], num_pp_samples=5),
    "ppc of the prior": lambda data: arviz.plot_ppc(data, group="prior", num_pp_samples=5),
    "p-values": lambda data: arviz.plot_bpv(data, var_names=["y"]),
    "a statistic": lambda data: arviz.plot_bpv(data, kind="t_stat", t_stat="0.5"),
    "loo-pit": lambda data: arviz.plot_loo_pit(data, y="y"),
    "density": lambda data: arviz.plot_density(data, var_names=["neurons.z"]),
    "forest": lambda data: arviz.plot_forest(data, var_names=["neurons.z"], combined=True),
}


@pytest.mark.skipif(IS_1, reason="names of plots of ArviZ 0.x")
def test_arviz_0_summarises_and_plots() -> None:
    data = export()
    z = data["posterior"]["neurons.z"]
    summary = arviz.summary(data, kind="stats", var_names=["neurons.z"], round_to="none")
    assert list(summary.index) == [f"neurons.z[{r}, {u}]" for r in (3, 1) for u in (0, 2)]
    np.testing.assert_allclose(summary["mean"], z.mean(("chain", "draw")).values.ravel(), rtol=1e-6)
    for name, plot in PLOTS.items():
        with warnings.catch_warnings():
            # ArviZ 0.23 calls matplotlib in ways that 3.11 deprecates, and doubts its own k-hat.
            warnings.filterwarnings("ignore", message=r"Passing a dict or None as alias_mapping")
            warnings.filterwarnings("ignore", message=r"Estimated shape parameter of Pareto")
            axes = np.ravel(plot(data))
        drawn = [line for a in axes for line in a.lines]
        assert sum(len(line.get_xdata()) for line in drawn) > 3, name
        plt.close("all")


# The adapter needs numpy and ArviZ alone; a bare package keeps it from importing the others.
PROGRAM = """
import json, sys, types
folder, root = sys.argv[1:]
sys.path.insert(0, root)
package = types.ModuleType("pyro_vdn.diagnostics")
package.__path__ = [f"{root}/pyro_vdn/diagnostics"]
sys.modules["pyro_vdn.diagnostics"] = package
from pyro_vdn.diagnostics.export._arviz import import_arviz
from pyro_vdn.diagnostics.export.arrays_to_arviz import SAMPLE_GROUPS, arrays_to_arviz
from pyro_vdn.diagnostics.export.netcdf import load_netcdf, save_netcdf
import numpy as np
import xarray

arviz = import_arviz()
assert int(arviz.__version__.split(".")[0]) >= 1 and "torch" not in sys.modules

# Built here from arrays, it is what was built on the other API and written to a file.
read = load_netcdf(f"{folder}/rows.nc")
arrays, layout = np.load(f"{folder}/rows.npz"), json.load(open(f"{folder}/layout.json"))
groups = {group: {} for group in layout["dims"]}
for key in arrays.files:
    group, _, name = key.partition("/")
    groups[group][name] = arrays[key]
built = arrays_to_arviz(
    groups, dims=layout["dims"], coords=layout["coords"], attrs=layout["attrs"]
)
assert isinstance(built, xarray.DataTree) and set(built.children) == set(read.children)
for group in groups:
    one, other = (tree[group].to_dataset() for tree in (built, read))
    xarray.testing.assert_equal(one, other)
    assert one.sizes == other.sizes and one.attrs.get("meaning") == other.attrs.get("meaning")
assert built.attrs["config"] == read.attrs["config"] == '{"rate": 0.1}'
assert read["posterior"]["neurons.z"].dims == ("chain", "draw", "row", "unit")
assert read["posterior"].row.values.tolist() == [3, 1]

# There and back again, of sequences with gaps and labels of strings.
gaps = load_netcdf(f"{folder}/gaps.nc")
save_netcdf(gaps, f"{folder}/again.nc")
again = load_netcdf(f"{folder}/again.nc")
assert dict(gaps.attrs) == dict(again.attrs) and set(gaps.children) == set(again.children)
for group in gaps.children:
    xarray.testing.assert_identical(gaps[group].to_dataset(), again[group].to_dataset())
assert gaps["observed_data"].time.values.tolist() == ["2026-01", "2026-02", "2026-03"]
assert np.isnan(gaps["log_likelihood"]["y"].sel(row=1, time="2026-02").values).all()

summary = arviz.summary(built, kind="stats", var_names=["neurons.z"], round_to="none")
mean = built["posterior"]["neurons.z"].mean(("chain", "draw")).values.ravel()
np.testing.assert_allclose(summary["mean"].astype(float), mean, rtol=1e-6)
first = {"output": 0}
for plot in (
    lambda: arviz.plot_ppc_dist(built, num_samples=5, backend="matplotlib"),
    lambda: arviz.plot_ppc_dist(
        built, group="prior_predictive", num_samples=5, backend="matplotlib"
    ),
    lambda: arviz.plot_ppc_pit(built, coords=first, backend="matplotlib"),
    lambda: arviz.plot_ppc_tstat(built, t_stat="median", backend="matplotlib"),
    lambda: arviz.plot_ppc_interval(built, coords=first, backend="matplotlib"),
    lambda: arviz.plot_loo_pit(built, backend="matplotlib"),
    lambda: arviz.plot_forest(built, var_names=["neurons.z"], backend="matplotlib"),
    lambda: arviz.plot_prior_posterior(built, var_names=["neurons.z"], backend="matplotlib"),
):
    plot()
print("all read on", arviz.__version__)
"""


@pytest.mark.skipif(
    not ARVIZ1.exists(),
    reason="no ArviZ 1.x in .venv/arviz1: `make setup` puts it there where it finds Python 3.12 or "
    "3.13, or `make setup PYTHON_ARVIZ1=/path/to/python`",
)
def test_arviz_1_reads_summarises_and_plots(tmp_path: Path) -> None:
    data = export(config={"rate": 0.1})
    save_netcdf(data, tmp_path / "rows.nc")
    arrays, dims, coords = {}, {}, {}
    for group in data.groups():
        found = data[group]
        sample = ("chain", "draw") if "draw" in found.dims else ()
        for name, variable in found.data_vars.items():
            arrays[f"{group}/{name}"] = variable.values[0] if sample else variable.values
        dims[group] = {n: v.dims[len(sample) :] for n, v in found.data_vars.items()}
        labels = {dim: found[dim].values.tolist() for dim in found.dims if dim not in sample}
        coords[group] = labels
    np.savez(tmp_path / "rows.npz", **arrays)
    meant = {group: data[group].attrs.get("meaning") for group in data.groups()}
    attrs = {group: {"meaning": meaning} for group, meaning in meant.items() if meaning}
    layout = {"dims": dims, "coords": coords, "attrs": {**attrs, "config": data.attrs["config"]}}
    (tmp_path / "layout.json").write_text(json.dumps(layout))
    model, x, y = (
        StateSpace(1, 2, num_units=2, hidden=3),
        torch.randn(2, 3, 1),
        torch.randn(2, 3, 2),
    )
    x[0, 1] = y[1, 1] = torch.nan
    gaps = to_arviz(model, NeuronGuide(model), (x, y), num_samples=3, coords={"time": TIMES})
    save_netcdf(gaps, tmp_path / "gaps.nc")
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment |= {"MPLBACKEND": "Agg", "MPLCONFIGDIR": str(tmp_path)}
    command = [str(ARVIZ1), "-W", "error", "-c", PROGRAM, str(tmp_path), str(ROOT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all read on 1." in done.stdout
