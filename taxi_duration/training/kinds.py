"""The kinds of models there are."""

from __future__ import annotations

KINDS = ("LR", "LASSO", "RIDGE", "RF", "XGB")
