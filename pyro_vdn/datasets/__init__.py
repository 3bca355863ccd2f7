"""Data: embedded and downloaded benchmarks, a user's own files, splits and windows."""

from pyro_vdn.datasets.borders import ETT_HOURLY, Borders, percent_borders
from pyro_vdn.datasets.bpe import BPETokenizer
from pyro_vdn.datasets.cache import DatasetStatus, cache_folder, describe, fetch, read_dataset
from pyro_vdn.datasets.files import read_csv_series, read_csv_table
from pyro_vdn.datasets.registry import DATASETS, DatasetInfo, dataset_info
from pyro_vdn.datasets.sequences import Sequences, SequenceSplits, window_sequences
from pyro_vdn.datasets.series import SERIES_NAMES, Series, load_series
from pyro_vdn.datasets.standardize import StandardizedSplit, Standardizer, standardize
from pyro_vdn.datasets.table import Split, Table
from pyro_vdn.datasets.text import TEXT_NAMES, Text, load_text
from pyro_vdn.datasets.text_splits import (
    TOKENIZER_KINDS,
    TextSpans,
    TextSplits,
    text_spans,
    text_splits,
)
from pyro_vdn.datasets.token_blocks import TokenBlocks, evaluation_batches
from pyro_vdn.datasets.token_shift import corrupt_tokens
from pyro_vdn.datasets.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    tokenizer_from_dict,
)
from pyro_vdn.datasets.uci import UCI_NAMES, SplitRows, load_uci, uci_split, uci_split_rows
from pyro_vdn.datasets.windows import Windows, WindowSplits, forecasting_windows

__all__ = [
    "DATASETS",
    "ETT_HOURLY",
    "SERIES_NAMES",
    "TEXT_NAMES",
    "TOKENIZER_KINDS",
    "UCI_NAMES",
    "BPETokenizer",
    "Borders",
    "ByteTokenizer",
    "CharTokenizer",
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
    "Text",
    "TextSpans",
    "TextSplits",
    "TokenBlocks",
    "Tokenizer",
    "WindowSplits",
    "Windows",
    "cache_folder",
    "corrupt_tokens",
    "dataset_info",
    "describe",
    "evaluation_batches",
    "fetch",
    "forecasting_windows",
    "load_series",
    "load_text",
    "load_uci",
    "percent_borders",
    "read_csv_series",
    "read_csv_table",
    "read_dataset",
    "standardize",
    "text_spans",
    "text_splits",
    "tokenizer_from_dict",
    "uci_split",
    "uci_split_rows",
    "window_sequences",
]
