"""The columns of the survey that the catalogue follows, read from a mechanism's Survey heading; what its numerals stand for.

Guo, Xu, Liu et al., "Attention Mechanisms in Computer Vision: A Survey", Computational Visual Media 2022, arXiv:2111.07624.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COLUMNS = ("domain", "g", "f", "tasks", "kind", "goal", "stage")
NO_ROW = "(no row in the survey)"
DOMAINS: Mapping[str, str] = {  # of the families that are not called as their domain is
    "channel_spatial": "channel & spatial",
    "spatial_temporal": "spatial & temporal",
    "context": "none (baseline)",
}
TASKS: Mapping[str, str] = {
    "Cls": "classification",
    "Det": "detection",
    "SSeg": "semantic segmentation",
    "ISeg": "instance segmentation",
    "ST": "style transfer",
    "Action": "action recognition",
    "FGCls": "fine-grained classification",
    "ICap": "image captioning",
    "ReID": "re-identification",
    "KD": "keypoint detection",
}
STAGES: Mapping[str, str] = {
    "1": "a recurrent network decides where to look (from RAM on)",
    "2": "a sub-network predicts the region that matters (STN, DCN)",
    "3": "gates on features (SE, CBAM, ECA)",
    "4": "self-attention",
}
GOALS: Mapping[str, Mapping[str, str]] = {
    "channel": {"I": "emphasize important channels", "II": "capture global information"},
    "spatial": {
        "I": "focus on discriminative regions",
        "II": "avoid excessive computation for large inputs",
        "III": "provide more invariance to transformations",
        "IV": "capture long-range dependencies",
        "V": "denoise the input feature map",
        "VI": "aggregate neighbourhood information adaptively",
        "VII": "reduce inductive bias",
    },
    "temporal": {
        "I": "exploit short-term context at several scales",
        "II": "capture long-term dependencies between features",
        "III": "capture local temporal context",
    },
    "branch": {
        "II": "fuse branches dynamically",
        "III": "select the receptive field adaptively",
        "IV": "fuse convolution kernels dynamically",
    },
    "channel_spatial": {
        "I": "focus on discriminative regions",
        "II": "emphasize important channels",
        "III": "capture long-range information",
        "IV": "capture interaction between any two domains",
    },
    "spatial_temporal": {},  # the table has I and II, no words for them
    "context": {},
}


@dataclass(frozen=True)
class Survey:
    """A row of the survey's tables: attention as f(g(x), x), what it was tried on, soft or hard, and why."""

    domain: str
    g: str
    f: str
    tasks: tuple[str, ...]  # of TASKS
    kind: tuple[str, ...]  # soft, hard
    goals: tuple[str, ...]  # roman numerals of the domain's table: GOALS
    stage: str  # of STAGES, or none
    row: bool  # False: the survey has no such row, and the columns are ours


def read(heading: str) -> Survey:
    """The Survey heading, read. Raises ValueError where a column is missing, unknown or out of order."""
    text = " ".join(heading.split())
    columns = [part.partition(":") for part in text.removesuffix(NO_ROW).split(";")]
    names = tuple(name.strip() for name, _, _ in columns)
    if names != COLUMNS:
        raise ValueError(f"the columns of Survey are {', '.join(COLUMNS)}, not {', '.join(names)}")
    domain, g, f, tasks, kind, goals, stage = (value.strip() for _, _, value in columns)
    return Survey(domain, g, f, _words(tasks), _words(kind), _words(goals), stage, not text.endswith(NO_ROW))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word and word != "none")
