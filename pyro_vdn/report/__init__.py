"""Pages to look at, each one file that needs neither network nor scripts."""

from pyro_vdn.report.token_page import SCORES, token_page

__all__ = ["SCORES", "token_page"]
