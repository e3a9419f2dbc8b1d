"""Where in the spec's file each row of its tables comes from."""

from __future__ import annotations

from attnprof.spec import Spec, variants
from attnprof.spec.networks import label_at, placements


def labels(spec: Spec) -> dict[str, tuple[int, int]]:
    """{label of a row: (line, column) of its entry in the file}, a network alone with the place of its own; (0, 0) for none."""
    own = [(label, (entry.line, entry.column)) for entry in spec.entries for label, _ in variants(entry)]
    if not spec.hosts:
        return dict(own)
    found = {alone.text: (spec.hosts[0].line, 0) for alone, _ in placements(spec.hosts)}
    suffixes = [suffix for _, places in placements(spec.hosts) for _, suffix in places]
    return found | {label_at(label, suffix): place for label, place in own for suffix in suffixes}
