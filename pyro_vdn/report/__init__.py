"""Pages to look at, each one file that needs neither network nor scripts."""

from pyro_vdn.report.token_map import SCORES
from pyro_vdn.report.token_page import token_page

__all__ = ["SCORES", "token_page"]
