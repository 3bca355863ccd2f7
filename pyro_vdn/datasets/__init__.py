"""Data: embedded and downloaded benchmarks, a user's own files, splits and windows."""

from pyro_vdn.datasets.borders import ETT_HOURLY, Borders, percent_borders
from pyro_vdn.datasets.cache import DatasetStatus, cache_folder, describe, fetch, read_dataset
from pyro_vdn.datasets.files import read_csv_series, read_csv_table
from pyro_vdn.datasets.registry import DATASETS, DatasetInfo, dataset_info
from pyro_vdn.datasets.sequences import Sequences, SequenceSplits, window_sequences
from pyro_vdn.datasets.series import SERIES_NAMES, Series, load_series
from pyro_vdn.datasets.standardize import StandardizedSplit, Standardizer, standardize
from pyro_vdn.datasets.table import Split, Table
from pyro_vdn.datasets.uci import UCI_NAMES, SplitRows, load_uci, uci_split, uci_split_rows
from pyro_vdn.datasets.windows import Windows, WindowSplits, forecasting_windows

__all__ = [
    "DATASETS",
    "ETT_HOURLY",
    "SERIES_NAMES",
    "UCI_NAMES",
    "Borders",
    "DatasetInfo",
    "DatasetStatus",
    "SequenceSplits",
    "Sequences",
    "Series",
    "Split",
    "SplitRows",
    "StandardizedSplit",
    "Standardizer",
    "Table",
    "WindowSplits",
    "Windows",
    "cache_folder",
    "dataset_info",
    "describe",
    "fetch",
    "forecasting_windows",
    "load_series",
    "load_uci",
    "percent_borders",
    "read_csv_series",
    "read_csv_table",
    "read_dataset",
    "standardize",
    "uci_split",
    "uci_split_rows",
    "window_sequences",
]
