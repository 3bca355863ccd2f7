"""Pages to look at, each one file that needs neither network nor scripts."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_vdn.report.token_map import SCORES
from pyro_vdn.report.token_page import token_page

if TYPE_CHECKING:
    from pyro_vdn.report.run_report import write_report

__all__ = ["SCORES", "token_page", "write_report"]


def __getattr__(name: str) -> Any:
    """Import the report on runs, and what trains them, when it is first asked for."""
    if name != "write_report":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.run_report").write_report
