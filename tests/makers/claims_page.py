"""reports/claims.md and .csv: the audit of every shipped claim; schema.json and index.json of specs/claims.

`make claims` runs this. Exits 1 where a verdict is not the one on record.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from attnprof import claims
from attnprof.claims import judge
from attnprof.cli import verify
from attnprof.report import claims as report

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "specs" / "claims" / "schema.json"
INDEX = ROOT / "specs" / "claims" / "index.json"


def schema_text() -> str:
    """The content of specs/claims/schema.json."""
    return json.dumps(claims.json_schema(), indent=2) + "\n"


def index_text() -> str:
    """The content of specs/claims/index.json, a row per line."""
    rows = [json.dumps(row, ensure_ascii=False) for row in claims.index_of(verify.read(()))]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def main() -> int:
    """Writes the files; 0 where every verdict is the one on record."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    INDEX.write_text(index_text(), encoding="utf-8")
    papers = verify.read(())
    verdicts = verify.verified(papers, None, "none", budget=1.0, quiet=True)
    rows, counts = [claims.to_json(each) for each in verdicts], judge.tally(verdicts)
    for name, render in report.RENDERERS.items():
        path = ROOT / "reports" / f"claims.{name}"
        path.write_text(render(rows, counts, verify.heads(papers)), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(rows)} rows", file=sys.stderr)
    others = [each.claim.name for each in verdicts if not each.as_recorded]
    for name in others:
        print(f"{name}: not the verdict on record", file=sys.stderr)
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
