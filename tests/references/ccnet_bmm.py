"""The function is that of ccnet."""

from __future__ import annotations

from tests.references.ccnet import VARIANTS, reference

__all__ = ["VARIANTS", "reference"]
