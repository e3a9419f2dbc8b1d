"""The nouns: what is asked (case.py), of what (mechanism.py), what was found (record.py); json.py: what they are in a file.

No torch, no I/O, no third party.
"""

from attnprof.records.case import ALONE, DTYPES, HOW, MODES, Case, Placement, Shape, public_import
from attnprof.records.json import (
    SCHEMA_VERSION,
    case_from_json,
    counts_from_json,
    opinion_from_json,
    record_from_json,
    timeline_from_json,
    timing_from_json,
    to_json,
)
from attnprof.records.mechanism import Mechanism, TensorSpec
from attnprof.records.record import (
    NOT_CALIBRATED,
    NOT_MEASURED_BUDGET,
    NOT_MEASURED_MEMORY,
    STATUSES,
    VERDICTS,
    Counts,
    Holder,
    Memory,
    Moment,
    OpCost,
    Opinion,
    Outputs,
    Record,
    Timeline,
    Timing,
)

__all__ = [
    "ALONE",
    "DTYPES",
    "HOW",
    "MODES",
    "NOT_CALIBRATED",
    "NOT_MEASURED_BUDGET",
    "NOT_MEASURED_MEMORY",
    "SCHEMA_VERSION",
    "STATUSES",
    "VERDICTS",
    "Case",
    "Counts",
    "Holder",
    "Mechanism",
    "Memory",
    "Moment",
    "OpCost",
    "Opinion",
    "Outputs",
    "Placement",
    "Record",
    "Shape",
    "TensorSpec",
    "Timeline",
    "Timing",
    "case_from_json",
    "counts_from_json",
    "opinion_from_json",
    "public_import",
    "record_from_json",
    "timeline_from_json",
    "timing_from_json",
    "to_json",
]
