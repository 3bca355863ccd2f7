"""The look of a report, in the reader's choice of light or dark, from a phone's width up."""

from __future__ import annotations

from pyro_vdn.report.document import themes
from pyro_vdn.report.token_map import LEVEL_RULES, MAP_STYLE

# Pictures are drawn dark on white. In the dark their lightness is turned round and their hues kept,
# and the white becomes the paper: "screen" adds the little that the paper is lighter than black.
_DARK = "img{filter:invert(1) hue-rotate(180deg);mix-blend-mode:screen}"

_RULES = """
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0 auto;max-width:64rem;padding:1rem 1rem 5rem;background:var(--paper);
color:var(--ink);font:1rem/1.6 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:1rem 0 .25rem}
h2{font-size:1.25rem;line-height:1.3;margin:2.75rem 0 .75rem;padding-top:.75rem;
border-top:1px solid var(--muted)}
h3{font-size:1.02rem;margin:1.5rem 0 .5rem}
h2 a{color:inherit;text-decoration:none}
h2 a:hover::after,h2 a:focus::after{content:" #";color:var(--muted)}
p{margin:.5rem 0;max-width:46rem}
.about,figcaption,.fine{color:var(--muted)}
.about{margin:.15rem 0}
a{color:inherit;text-underline-offset:.2em}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:1.25rem 0 0}
ul{margin:.5rem 0;padding-left:1.25rem;max-width:46rem}
li{margin:.35rem 0}
.warnings{list-style:none;padding:0}
.warnings li,.clear{margin:.5rem 0;padding:.5rem .9rem;border-left:.3rem solid var(--strong);
background:color-mix(in srgb,var(--strong) 12%,var(--paper))}
.clear{border-left-color:var(--muted);background:none}
.wide{overflow-x:auto}
.wide:focus-visible{outline:2px solid var(--ink)}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.95rem;line-height:1.45}
th,td{padding:.3rem .6rem;text-align:right;vertical-align:top;overflow-wrap:normal}
th:first-child{text-align:left;padding-left:0;min-width:6.5rem}
.texts th,.texts td{text-align:left}
th{font-weight:600}
tbody th{font-weight:400}
thead th{border-bottom:2px solid var(--muted);vertical-align:bottom}
tbody tr+tr>*{border-top:1px solid color-mix(in srgb,var(--muted) 35%,transparent)}
td{white-space:nowrap}
.texts td{white-space:normal}
.texts td+td{min-width:13rem}
b{font-weight:700}
figure{margin:1.25rem 0}
figcaption{font-size:.95rem;line-height:1.45;max-width:46rem}
figcaption+*{margin-top:.4rem}
label{display:block;position:relative;cursor:zoom-in}
label input{position:absolute;opacity:0;margin:0}
.picture{display:block;overflow-x:auto}
input:focus-visible+.picture{outline:2px solid var(--ink)}
img{display:block;width:100%;height:auto}
input:checked+.picture{cursor:zoom-out}
input:checked+.picture img{width:1400px;max-width:none}
code,pre{font:.92em/1.5 ui-monospace,Menlo,Consolas,monospace}
pre{overflow-x:auto;padding:.75rem 1rem;border:1px solid var(--muted)}
details{margin:1rem 0}
summary{cursor:pointer}
"""

STYLE = _RULES + MAP_STYLE + themes(LEVEL_RULES["light"], LEVEL_RULES["dark"] + _DARK)
"""Rules of the style sheet of a report."""
