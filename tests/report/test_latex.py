"""LaTeX: what an escaped name becomes, what a page holds, and that pdflatex takes all of it without an overfull box."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof import report
from attnprof.records import OpCost, Record
from attnprof.report import latex, texcells
from attnprof.report.metrics import METRICS, Reading
from attnprof.report.table import Cell, Look
from attnprof.report.tex import breakable, escape, slug
from tests.report.test_report import counts, golden, record, run, survey, timing

PDFLATEX = shutil.which("pdflatex")
HOSTILE = [
    r"\input{/etc/passwd}",
    "$x^2_{3}$ & 50% #1 ~a^b",
    "[optional]*",
    "* star",
    "日本語の注意機構",
    "\u03b1-βlock → ±µ ² ₃ ≤ … Ω ς",
    "x" * 110,
    "a_very_long_label[with=1,many=2,arguments=3,and=4,more=5,of=6,them=7]",
    "\\",
    "%",
    "}",
    "{",
    r"\\",
    "--- -- '' `` ,, <<>> ?` !`",
    "é ñ ü ő ß Ł İ ǰ \u202e abc \u0000 tab\tx",
    "😀",
    r"\end{tabular}",
    "^^5c",
    "-",
    "12.3",
    "1e-5",
    '"quoted"',
    "| pipe",
]


def hostile() -> list[Record]:
    """Labels, reasons and uncounted ops that TeX would take for its own; every seventh has failed."""
    out = [record("nonlocal", counts(50_000_000_000, 372 * 2**20), timing(400.0))]
    for i, text in enumerate(HOSTILE):
        counted = counts(10**9 * (i + 1), 2**20 * (i + 3), uncounted={text: 2} if i % 5 == 0 else {})
        made = record(text, counted, timing(3.0 + i) if i % 2 else None, detail=text)
        out.append(replace(made, status="oom", counts=None, timing=None) if i % 7 == 3 else made)
    return out


def tall() -> list[Record]:
    """More rows than a page has, each with a reason of its own."""
    return [
        record(f"m{i}", counts(10**9 + i, 2**20 + i), None, status="error" if i % 3 == 0 else "ok", detail=f"reason {i} " * 12)
        for i in range(60)
    ]


def wide() -> list[Record]:
    """Every metric, with intervals whose sides differ."""
    skewed = [timing(400.0), timing(1.0), replace(timing(20.0), latency_s=(0.02,) * 12 + (0.3,) * 8)]
    return [
        record(label, counts(10**9 * 7**i, 2**20 * 9**i), timed)
        for i, (label, timed) in enumerate(zip("abc", skewed, strict=True))
    ]


# Text


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("a_b & 50% #1 $x$", r"a\_b \& 50\% \#1 \$x\$"),
        (r"\{}~^", r"\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}"),
        ("[a]", "{}[a]"),
        ("a[1]", "a[1]"),
        ("*a", "{}*a"),
        ("a--b ''c''", r"a-{}-b '{}'c'{}'"),
        ("12 ± 3 → é", r"12 $\pm$ 3 $\rightarrow$ \'{e}"),
        ("αΩΑ", r"$\alpha$$\Omega$A"),
        ("日", r"\textsf{U+65E5}"),
        ("a\nb", "a b"),
    ],
)
def test_every_special_character_is_escaped(text: str, tex: str) -> None:
    assert escape(text) == tex


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_what_is_escaped_is_ascii_with_closed_groups_and_no_comment(text: str) -> None:
    for tex in (escape(text), breakable(text)):
        assert tex.isascii()
        assert "\n" not in tex
        bare = re.sub(r"\\[\\{}$&#_%]", "", tex)
        assert not re.search(r"[&#%]|\^(?!\d|\\circ|\{)|_(?!\d)|~(?!\{)", bare.replace(r"\^{", "").replace(r"\~{", ""))
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0


def test_long_words_may_be_broken_and_short_ones_not() -> None:
    assert r"\allowbreak" not in breakable("a short_label[recurrence=3]"[:24])
    assert breakable("x" * 40) == r"\allowbreak{}".join(["x" * 16, "x" * 16, "x" * 8])
    assert breakable("y" * 40).replace(r"\allowbreak{}", "") == "y" * 40


def test_labels_of_floats_are_plain() -> None:
    assert [slug(name) for name in ("Segmentation 97x97", "../_", "é{}%")] == ["segmentation-97x97", "report", "report"]


# Cells


def test_decimals_stand_under_each_other() -> None:
    texts = ["12.41", "0.0049", "35013", "<0.001", "-"]
    assert texcells.booktabs([Cell(text) for text in texts]) == [
        r"12.41\phantom{00}",
        "0.0049",
        r"35013\phantom{.0000}",
        r"$<$0.001\phantom{0}",
        "--",
    ]


def test_the_line_under_a_second_does_not_make_less_than_into_less_or_equal() -> None:
    texts = texcells.booktabs([Cell("<0.001", rank=2), Cell("<0.001", rank=1), Cell("-<0.001", rank=2)])
    assert texts == [r"$<$\underline{0.001}", r"$<$\textbf{0.001}", r"$-$$<$\underline{0.001}"]


def test_best_is_bold_second_underlined_and_a_footnote_has_no_width() -> None:
    cells = [Cell("1.5", rank=1), Cell("2.5", rank=2), Cell("3.5", reason="why", marker=27), Cell("oom", reason="x", marker=1)]
    assert texcells.booktabs(cells) == [
        r"\textbf{1.5}",
        r"\underline{2.5}",
        r"3.5\rlap{\textsuperscript{aa}}",
        r"OOM\rlap{\textsuperscript{a}}",
    ]


def test_intervals_are_left_aligned_where_they_differ_in_length() -> None:
    same = texcells.booktabs([Cell("12.41 ± 0.08"), Cell("9.30 ± 0.11")])
    assert same == [r"12.41 $\pm$ 0.08", r"9.30 $\pm$ 0.11"]
    mixed = texcells.booktabs([Cell("12.4 ± 0.1"), Cell("9.3 [9.1, 17.0]"), Cell("3.0")])
    box = r"\hphantom{ {}[9.1, 17.0]}"
    assert mixed == [rf"12.4\rlap{{ $\pm$ 0.1}}{box}", rf"9.3\rlap{{ {{}}[9.1, 17.0]}}{box}", rf"3.0{box}"]


def test_signs_and_powers_are_mathematics() -> None:
    cells = [Cell("+1.25"), Cell("-0.30"), Cell("6.04e-06"), Cell("-<0.001")]
    assert texcells.booktabs(cells) == [
        r"$+$1.25\phantom{0}",
        r"$-$0.30\phantom{0}",
        r"6.04$\times10^{-6}$",
        r"$-$$<$0.001",
    ]


def test_a_word_ends_where_numbers_do() -> None:
    texts = texcells.booktabs([Cell("12.41 ± 0.08"), Cell("oom", reason="x", marker=1), Cell("-", reason="y", marker=2)])
    box = r"\hphantom{ $\pm$ 0.08}"
    assert texts[1:] == [rf"OOM\rlap{{\textsuperscript{{a}}}}{box}", rf"--\rlap{{\textsuperscript{{b}}}}{box}"]


def siunitx(*texts: str, rank: int = 0, marker: int = 0) -> tuple[list[str], str]:
    return texcells.siunitx([Cell(text, rank=rank, reason="x" if marker else "", marker=marker) for text in texts])


def test_siunitx_reads_signs_margins_and_powers_and_words_stand_in_braces() -> None:
    cells = [Cell("12.41 ± 0.08", rank=1), Cell("401", rank=2), Cell("<0.001"), Cell("oom", reason="x", marker=1)]
    texts, options = texcells.siunitx(cells)
    assert texts == [r"\bfseries 12.41(8)", "401", "<0.001", r"{OOM\rlap{\textsuperscript{a}}}"]
    assert options == "table-format=<3.3(1), table-align-comparator=false"
    assert siunitx("12.4 ± 1.3", "3") == (["12.4(13)", "3"], "table-format=2.1(2)")
    assert siunitx("5.0 ± 0.0") == (["5.0"], "table-format=1.1")
    powers = [r"6.04{$\times10^{-6}$}", r"2.5{$\times10^{12}$}", "0.000404"]
    assert siunitx("6.04e-06", "2.5e+12", "0.000404") == (
        powers,
        "table-format=1.6, table-align-text-after=false, table-space-text-post=00",
    )
    assert siunitx("+1.25", "-0.3", "0") == (["+1.25", "-0.3", "0"], "table-format=+1.2, retain-explicit-plus")
    assert siunitx("-<0.001", rank=2)[0] == [r"{$-$$<$0.001}"]
    assert siunitx("-", "1e") == (["{--}", "{1e}"], "table-format=1.0")


def test_what_follows_a_number_is_text_behind_it_in_siunitx() -> None:
    assert siunitx("42.0", marker=3) == (
        [r"42.0{\rlap{\textsuperscript{c}}}"],
        "table-format=2.1, table-align-text-after=false",
    )
    assert siunitx("42 [1, 50]", "0.123456789012") == (
        ["42{ {}[1, 50]}", "0.123456789012"],
        "table-format=2.12, table-align-text-after=false",
    )
    texts, options = siunitx("20 [20, 300]", "3.0 ± <0.1", "400 ± 2")
    assert texts == ["20{ {}[20, 300]}", r"3.0{ $\pm$ \textless{}0.1}", "400(2)"]
    assert options == "table-format=3.1(1), table-align-text-after=false, table-space-text-post=000000000"
    assert siunitx("3.0 ± <0.1", rank=1)[0] == [r"\bfseries 3.0{\mdseries{} $\pm$ \textless{}0.1}"]


# Tables


def body(tex: str) -> list[list[str]]:
    """The cells of every row between \\midrule and \\bottomrule."""
    found = re.findall(r"\\midrule\n(.*?)\\bottomrule", tex, re.DOTALL)
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line[:-3])] for part in found for line in part.strip().split("\n")]


def test_standalone_matches_its_golden_file() -> None:
    built = report.build(run(), name="segmentation", look=Look("best", "siunitx", standalone=True), source="ab", commit="cd")
    golden("standalone.tex", latex.render(built))
    golden("survey.tex", latex.render(report.build(survey(), name="survey")))


def test_a_row_per_case_and_no_cell_is_empty() -> None:
    members = [*run(), *hostile()]
    rows = body(latex.render(report.build(members, baseline="nonlocal", metrics=("params", "macs"))))
    assert len(rows) == len(members)
    assert {len(row) for row in rows} == {5}
    assert all(cell for row in rows for cell in row)


def test_the_unit_stands_in_the_head_once_and_the_direction_with_it() -> None:
    grouped = latex.render(report.build(run(), baseline="nonlocal", metrics=("macs", "throughput")))
    assert r"\multicolumn{2}{c}{MACs $\downarrow$} & \multicolumn{2}{c}{Throughput $\uparrow$} \\" in grouped
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in grouped
    assert r"Mechanism & (G) & ratio & \multicolumn{1}{c}{(1/s)} & ratio \\" in grouped
    single = latex.render(report.build(run(), metrics=("macs", "params")))
    assert r"Mechanism & MACs (G) $\downarrow$ & Params (M) $\downarrow$ \\" in single
    assert r"\cmidrule" not in single
    kinds = latex.render(report.build(run(), metrics=("macs", "params", "latency")))
    assert r" & \multicolumn{2}{c}{Traced} & \multicolumn{1}{c}{Measured} \\" in kinds
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in kinds
    assert "|" not in grouped


def test_the_caption_says_convention_interval_and_number_of_samples() -> None:
    built = report.build(run(), name="n", baseline="nonlocal", source="5ca1ab1e", commit="c0ffee-dirty")
    tex = latex.render(built)
    caption = re.findall(r"\\caption\{(.*)\}\n", tex)[0]
    assert caption.startswith("n: 97x97, 512 channels, batch 1, float32, inference, device cpu. ")
    for words in (
        "FLOPs: 2 per MAC, plus element-wise and softmax work.",
        r"larger side of its 95 \% interval",
        "n = 20 samples, K = 1 process.",
        "interval within one process;",
        "value / value of nonlocal.",
    ):
        assert words in caption
    assert (
        "Best of a column in bold, second underlined, by the unrounded values; values that no interval tells apart" in caption
    )
    assert "(of timings side by side: that of their ratio) share a mark." in caption
    assert (
        "torch 2.13.0, threads 1, matmul tf32 off, cudnn tf32 on, attnprof 0.1.0. Spec: SHA-256 5ca1ab1e. Commit: c0ffee-dirty."
        in tex
    )
    assert "Commit" not in latex.render(report.build(run()))


def test_the_caption_says_that_values_which_read_alike_are_ranked_unrounded() -> None:
    alike = [record(label, counts(10**9 + i, 2**20)) for i, label in enumerate("abc")]
    for look, second in ((Look(), ", second underlined"), (Look(latex="siunitx"), "")):
        tex = latex.render(report.build(alike, metrics=("macs",), look=look))
        assert f"Best of a column in bold{second}, by the unrounded values." in tex
    assert "unrounded" not in re.findall(r"\\caption\{.*", latex.render(report.build(wide(), metrics=("macs",))))[0]


def test_the_caption_says_what_brackets_are_and_what_intervals_cover() -> None:
    skewed = latex.render(report.build(wide(), baseline="a", metrics=("latency",)))
    assert "[low, high] where one side of the interval is over 1.5 times the other" in skewed
    assert "Latency ratio: over rounds timed side by side" in skewed
    several = replace(timing(3.0, rounds=4), process_of=(0, 0, 1, 1), rounds=(0, 1, 0, 1))
    tex = latex.render(report.build([record("a", counts(1, 1), several)], metrics=("latency",)))
    assert r"95 \% interval over processes" in tex
    assert "n = 4 samples, K = 2 processes." in tex
    few = latex.render(report.build([record("a", counts(1, 1), timing(3.0, rounds=4))], metrics=("latency",)))
    assert "(below 6 samples: the range)" in few


def test_the_caches_are_said_where_a_record_knows() -> None:
    known = replace(record("a", counts(1, 1), timing(3.0)), environment={"flush_bytes": 3 * 2**20})
    assert "Caches: cold, 3 MiB written before each pass." in latex.render(report.build([known]))
    assert "Caches" not in latex.render(report.build(run()))
    warm = replace(known, environment={"flush_bytes": 0})
    assert "Caches: warm." in latex.render(report.build([warm]))


def test_failures_are_marks_with_a_footnote() -> None:
    tex = latex.render(report.build(run(), metrics=("macs", "latency")))
    rows = {row[0]: row for row in body(tex)[:7]}
    assert rows["fullattn"][1].startswith("OOM")
    assert rows["sasa"][2].startswith("timeout")
    assert rows["se"][2].startswith("--")
    assert r"~oom: host: 61 GiB wanted" in tex


def test_nothing_is_bold_where_nothing_is_ranked() -> None:
    tex = latex.render(report.build(run(), look=Look("none")))
    assert r"\textbf" not in tex
    assert "bold" not in tex


def test_a_table_that_is_too_wide_or_too_tall_is_several() -> None:
    every = ("params", "macs", "flops", "bytes_moved", "activation_memory", "peak_memory", "peak_cuda_memory", "latency")
    tex = latex.render(report.build(wide(), baseline="a", metrics=every))
    assert "(part 1 of 2)" in tex
    assert [len(row) for row in body(tex)] == [9] * 3 + [9] * 3
    parts = latex.render(report.build(tall(), metrics=("macs", "latency")))
    rows = body(parts)
    assert [row[0] for row in rows] == [f"m{i}" for i in range(60)]
    assert parts.count(r"\begin{table") > 2
    assert len(re.findall(r"~not measured: reason", parts)) + len(re.findall(r"~error: reason", parts)) == 60


def test_the_convention_of_flops_stands_where_flops_do() -> None:
    said = {
        key: "FLOPs: 2 per MAC, plus" in latex.render(report.build(run(), metrics=(key,))).partition("\n% ")[0]
        for key in ("flops", "macs", "params")
    }
    assert said == {"flops": True, "macs": False, "params": False}


def test_what_the_columns_mean_stands_on_the_page() -> None:
    kernel = (OpCost("_scaled_dot_product_flash_attention", "", "forward", 1, 8, 16, 24),)
    restless = replace(timing(3.0), warmup_converged=False)
    members = [record("a", replace(counts(4, 4), ops=kernel), restless), record("b", counts(2, 2), timing(2.0))]
    meanings = (
        "Peak: the most tensor storage alive above parameters, buffers and inputs.",
        "MACs: multiply-accumulates of convolution",
        "is traced as the kernel that a GPU would choose",
        "Warm-up did not reach a steady state: a.",
    )
    text = latex.render(report.build(members, metrics=("macs", "peak_memory", "latency")))
    printed = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert [printed.count(meaning) for meaning in meanings] == [1] * 4
    alone = latex.render(report.build(members, metrics=("macs", "peak_memory", "latency"), look=Look(standalone=True)))
    assert [alone.count(meaning) for meaning in meanings] == [1] * 4  # once, among the notes of the document
    other = latex.render(report.build(members, metrics=("macs",)))
    printed = "\n".join(line for line in other.splitlines() if not line.startswith("%"))
    assert [printed.count(meaning) for meaning in meanings] == [0, 1, 1, 0]


def test_notes_are_comments_or_a_section() -> None:
    built = report.build(run())
    assert "% MACs: multiply-accumulates" in latex.render(built)
    alone = latex.render(replace(built, look=Look(standalone=True)))
    assert r"\item[--] MACs: multiply-accumulates" in alone
    assert "\n%" not in alone


@pytest.mark.parametrize("value", [0.0, 12.41, 1e-9, 35013.0])
def test_a_reading_alone_is_a_table(value: float) -> None:
    members = [replace(record("a"), energy_j=value)]
    assert Reading(value) == report.build(members, metrics=("energy",)).tables[0].rows[0].cells[1].reading
    assert len(body(latex.render(report.build(members, metrics=("energy",))))) == 1


# pdflatex


def compiled(tex: str, folder: Path, around: str = "{}") -> str:
    """The log of pdflatex, which has to end well."""
    assert PDFLATEX is not None
    (folder / "t.tex").write_text(around.replace("{}", tex), encoding="ascii")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    log = (folder / "t.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-3000:]
    return log


def complaints(log: str) -> list[str]:
    """What pdflatex has to say of the page, but for references that want another pass."""
    found = re.findall(r"^(?:! .*|Overfull .*|LaTeX Warning: .*|Package .* Warning: .*)$", log, re.MULTILINE)
    return [line for line in found if "Label(s) may have changed" not in line]


needs_pdflatex = pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex here (texlive-latex-recommended)")
REPORTS = {
    "run": report.build(run(), name="segmentation", baseline="nonlocal", look=Look(standalone=True)),
    "hostile": report.build(hostile(), name=r"h\o_st%ile ] & $", baseline="nonlocal", look=Look(standalone=True)),
    "alone": report.build(hostile(), name="{", look=Look(standalone=True), metrics=("macs", "latency")),
    "tall": report.build(tall(), name="tall", look=Look(standalone=True)),
    "wide": report.build(wide(), baseline="a", metrics=tuple(METRICS), look=Look(standalone=True)),
    "survey": report.build(survey(), look=Look(standalone=True)),
    "blocks": report.build(
        [record("a", counts(i, i), hw=(i, i), device="none") for i in range(1, 121)], look=Look(standalone=True)
    ),
    "empty": report.build([], name="", look=Look(standalone=True)),
}


@needs_pdflatex
@pytest.mark.parametrize("name", REPORTS)
def test_pdflatex_takes_the_document_as_it_is(name: str, tmp_path: Path) -> None:
    log = compiled(latex.render(REPORTS[name]), tmp_path)
    assert complaints(log) == []
    assert (tmp_path / "t.pdf").stat().st_size > 1000


@needs_pdflatex
@pytest.mark.parametrize("options", ["10pt", "twocolumn"])
def test_pdflatex_takes_the_file_where_it_is_put(options: str, tmp_path: Path) -> None:
    packages = r"\usepackage{booktabs,graphicx}"
    around = f"\\documentclass[{options}]{{article}}{packages}\\begin{{document}}\nText.\n{{}}\n\\end{{document}}"
    for members in (run(), hostile()[:12]):
        log = compiled(latex.render(report.build(members, name="a", baseline="nonlocal")), tmp_path, around)
        assert [line for line in complaints(log) if "multiply" not in line and "float specifier changed" not in line] == []


SIUNITX = shutil.which("kpsewhich") is not None and bool(
    subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True, check=False).stdout.strip()
)
needs_siunitx = pytest.mark.skipif(not SIUNITX, reason="no siunitx here (texlive-science)")


@needs_pdflatex
@needs_siunitx
@pytest.mark.parametrize("name", REPORTS)
def test_pdflatex_takes_siunitx(name: str, tmp_path: Path) -> None:
    built = replace(REPORTS[name], look=Look("significant", "siunitx", standalone=True))
    log = compiled(latex.render(built), tmp_path)
    assert complaints(log) == []


@needs_pdflatex
@needs_siunitx
@pytest.mark.parametrize("options", ["10pt", "twocolumn"])
def test_pdflatex_takes_siunitx_where_it_is_put(options: str, tmp_path: Path) -> None:
    """With the lines in its preamble that the file names in its head, and with the packages alone."""
    built = report.build(hostile()[:12], name="a", baseline="nonlocal", look=Look("significant", "siunitx"))
    tex = latex.render(built)
    wanted = "\n".join(line.removeprefix("% ") for line in tex.split("\n") if line.startswith((r"% \robustify", r"% \sisetup")))
    assert wanted.count("\n") == 1
    packages = r"\usepackage{booktabs,graphicx,siunitx,etoolbox}"
    for preamble in (packages, f"{packages}\n{wanted}"):
        around = f"\\documentclass[{options}]{{article}}{preamble}\\begin{{document}}\nText.\n{{}}\n\\end{{document}}"
        log = compiled(tex, tmp_path, around)
        assert [line for line in complaints(log) if "multiply" not in line and "float specifier changed" not in line] == []
