from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from pyro_vdn.diagnostics.export.arrays_to_arviz import arrays_to_arviz
from pyro_vdn.diagnostics.export.netcdf import load_netcdf, save_netcdf
from pyro_vdn.errors import InputError


def example(fill: float = 1.5, **attrs: Any) -> Any:
    return arrays_to_arviz(
        {
            "posterior": {"neurons.z": np.full((20, 4, 3), fill)},
            "observed_data": {"y": np.array([1.0, np.nan, 3.0, 4.0], dtype=np.float32)},
            "unit_stats": {"kl": np.arange(3.0), "active": np.array([True, False, True])},
            "constant_data": {"beta": 0.5, "empty": np.zeros((0, 2))},
        },
        dims={"neurons.z": ["row", "unit"], "y": ["row"], "kl": ["unit"], "active": ["unit"]},
        coords={"unit": ["a", "b", "ç"]},
        attrs={"seed": 7, "unit_stats": {"layer": "neurons"}, **attrs},
    )


def names(data: Any) -> set[str]:
    if hasattr(data, "children"):
        return set(data.children)
    return set(data.groups())


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    before = example()
    save_netcdf(before, tmp_path / "run.nc")
    after = load_netcdf(tmp_path / "run.nc")
    assert type(after) is type(before)
    assert names(after) == names(before)
    assert after.attrs == before.attrs
    for group in names(before):
        old, new = before[group], after[group]
        if hasattr(old, "to_dataset"):
            old, new = old.to_dataset(), new.to_dataset()
        xarray.testing.assert_identical(old, new)
        for name in old.data_vars:
            assert old[name].dtype == new[name].dtype


def test_a_loaded_file_can_be_replaced_and_saved_again(tmp_path: Path) -> None:
    path = tmp_path / "run.nc"
    save_netcdf(example(), path)
    loaded = load_netcdf(str(path))
    save_netcdf(example(fill=-2.0), path)
    assert float(loaded["posterior"]["neurons.z"].max()) == 1.5  # in memory, not on the file
    save_netcdf(loaded, str(path))
    assert float(load_netcdf(path)["posterior"]["neurons.z"].min()) == 1.5
    assert [file.name for file in tmp_path.iterdir()] == ["run.nc"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.nc"
    save_netcdf(example(), path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"data: expected attributes and values that netCDF"):
        save_netcdf(example(unit_stats={"model": object()}), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.nc"]


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99], ids=str)
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "run.nc"
    save_netcdf(example(), path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(InputError, match=r"path: expected a readable .* Try: .* copy it again"):
        load_netcdf(path)


def test_a_flipped_bit_in_the_values_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run.nc"
    # Random bytes do not compress: the hardest case for the compressor's checksum.
    random = np.random.default_rng(0).integers(256, size=(200, 500), dtype=np.uint8)
    save_netcdf(arrays_to_arviz({"posterior": {"z": random}}), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # the values fill nearly the whole file
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"path: expected a readable netCDF file"):
        load_netcdf(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.nc").write_text("row,value\n1,2\n")
    with pytest.raises(InputError, match=r"path: expected a readable netCDF file"):
        load_netcdf(tmp_path / "table.nc")
    other = xarray.Dataset({"x": [1.0]}, attrs={"inference_library": "other"})
    other.to_netcdf(tmp_path / "other.nc", engine="h5netcdf", group="posterior")
    with pytest.raises(InputError, match=r"written by pyro-vdn, .* arviz.from_netcdf"):
        load_netcdf(tmp_path / "other.nc")
    other.to_netcdf(tmp_path / "named.nc", engine="h5netcdf")
    with pytest.raises(InputError, match=r"named.nc' of other"):
        load_netcdf(tmp_path / "named.nc")


def test_missing_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"path: .*FileNotFoundError.* Try: check the path"):
        load_netcdf(tmp_path / "none.nc")
    with pytest.raises(InputError, match=r"existing folder, got .* Try: create the folder"):
        save_netcdf(example(), tmp_path / "none" / "run.nc")
    with pytest.raises(InputError, match=r"path: expected a file, got the folder"):
        save_netcdf(example(), tmp_path)
