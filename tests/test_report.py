"""The report page, its plots and the terminal's table, from result files alone."""

import io
import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import paretone.evaluation
from paretone.cli import measuring
from paretone.errors import UserError
from paretone.report import read_results, terminal_table, write_report
from paretone.report.story import tell
from paretone.report.strips import profiles
from paretone.report.study import studies
from paretone.report.waterfall import chains
from paretone.results.schema import GroupScores, Measures, Result, write_result

SPEAKERS = ("george", "jackson", "lucas", "theo")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
SCRIPT = "<script>alert(1)</script>"
ADDED_WER = {  # at SPARSITIES
    "cluster": (0.001, 0.003, 0.006, 0.010, 0.045, 0.120),
    "magnitude": (0.004, 0.012, 0.060, 0.180, 0.420, 0.900),
    "random": (0.030, 0.110, 0.300, 0.600, 0.900, 1.300),
}
WORDS = 912


def modules_of(family: str) -> list[tuple[str, str, int]]:
    """(name, kind, width) of every group of a small model."""
    names: list[tuple[str, tuple[tuple[str, str, int], ...]]]
    if family == "hubert":
        names = [
            (f"hubert.encoder.layers.{i}", (("attention", "heads", 8), ("feed_forward", "ffn", 512))) for i in range(6)
        ]
    else:
        encoder = (("self_attn", "heads", 6), ("fc1", "ffn", 576))
        decoder = (("self_attn", "heads", 6), ("encoder_attn", "heads", 6), ("fc1", "ffn", 576))
        names = [(f"model.encoder.layers.{i}", encoder) for i in range(4)]
        names += [(f"model.decoder.layers.{i}", decoder) for i in range(4)]
    return [(f"{layer}.{part}", kind, width) for layer, parts in names for part, kind, width in parts]


def errors_at(wer: float) -> dict[str, int]:
    """Counts for about this WER of 912 words."""
    total = round(wer * WORDS)
    deletions, insertions = total // 3, total // 5
    return {"substitutions": total - deletions - insertions, "deletions": deletions, "insertions": insertions}


def measures(source: str, *, wer: float, share: float = 1.0, plan: dict[str, Any] | None = None) -> dict[str, Any]:
    """The block of measures of one model."""
    family = "hubert" if "hubert" in source else "whisper"
    full = 1_930_784 if family == "hubert" else 1_764_096
    exact = sum(errors_at(wer).values()) / WORDS
    label = "original" if plan is None else f"{plan['steps'][0]['method']}-{round(100 * share)}"
    spoken = WORDS // len(SPEAKERS)
    by_speaker = {
        name: {"wer": exact * tilt, **errors_at(exact * tilt / 4), "words": spoken, "utterances": 51}
        for name, tilt in zip(SPEAKERS, (0.6, 0.8, 1.1, 1.5), strict=True)
    }
    path = f"demo/{source}/{label}"
    model = {"name": source if plan is None else path, "path": path, "digest": f"sha256:{source}-{label}"}
    architecture = {"family": family, "architecture": "HubertForCTC", "plan": plan}
    return {
        "normaliser": "whisper-english/1", "wer": exact, "cer": exact * 0.6, **errors_at(wer), "words": WORDS,
        "utterances": 204, "character_errors": round(exact * 0.6 * 3900), "characters": 3900,
        "wer_ci95": (max(0.0, exact - 0.01 - exact / 9), exact + 0.012 + exact / 9), "by_speaker": by_speaker,
        "by_language": {"en": {"wer": exact, **errors_at(wer), "words": WORDS, "utterances": 204}},
        "model": {**model, **architecture},
        "decoding": {"kind": "greedy", "reference": "10 s of audio"}, "parameters": round(full * share),
        "size_bytes": round(4 * full * share) + 20_000, "macs": round(1.1e9 * share),
        "rtfx": 61.3 / (0.3 + 0.7 * share), "audio_s": 615.2, "seconds": 10.0, "peak_rss_bytes": 700_000_000,
    }  # fmt: skip


def plan_of(source: str, method: str, sparsity: float, **settings: Any) -> dict[str, Any]:
    """A plan with equal shares everywhere; ``depth`` drops the last layers."""
    modules = modules_of("hubert" if "hubert" in source else "whisper")
    widths = []
    for name, kind, width in modules:
        last = method == "depth" and int(name.split(".layers.")[1].split(".")[0]) >= round((1 - sparsity) * 6)
        after = (0 if last else width) if method == "depth" else max(1, round(width * (1 - sparsity)))
        widths.append({"name": name, "kind": kind, "width_before": width, "width_after": after})
    step = {"method": method, "sparsity": sparsity, "units": "all", "seed": 0, "settings": settings, "modules": []}
    return {"format": 1, "source": source, "source_digest": f"sha256:{source}-original", "family": "hubert",
            "steps": [step], "parameters_before": 1_930_784, "modules": widths}  # fmt: skip


def result(source: str, *, wer: float, base: float | None, word: str = SCRIPT, **more: Any) -> Result:
    """A result as an evaluation writes it; ``base`` is the baseline's WER, or None without one."""
    block = measures(source, wer=wer, **more)
    verdict: dict[str, Any] = {}
    if base is not None:
        delta = block["wer"] - measures(source, wer=base)["wer"]
        spread = 0.006 + abs(delta) / 8
        verdict = {
            "baseline": measures(source, wer=base),
            "delta_wer": delta,
            "p_value": 0.0002 if delta > spread else 0.4,
            "p_mapsswe": 0.0461 if delta > 2 * spread else 0.3,
            "mapsswe_z": 2.0 if delta > 2 * spread else 1.0,
            "mapsswe_segments": 120,
            "detectable_delta_wer": 1.4 * spread,
        }
        verdict["delta_wer_ci95"] = (delta - spread, delta + spread)
    changes = [
        {"word": said, "count": 92 - 3 * place, "baseline_errors": 3 if base is not None else None,
         "errors": max(0, 3 + round(60 * wer) - place), "heard_as": {DIGITS[place - 3]: 3, "": 2, word: 1}}
        for place, said in enumerate((word, *DIGITS[:7]))
    ]  # fmt: skip
    data = {"name": "digits", "path": "src/paretone/embedded/evaluation", "digest": "sha256:da7a", "utterances": 204,
            "audio_s": 615.2, "skipped": [{"audio": "bad.flac", "reason": "silent"}]}  # fmt: skip
    machine = {"cpu": "Xeon & Sons", "cores": 2, "threads": 2, "memory_bytes": 16_000_000_000, "python": "3.11.7",
               "torch": "2.13.0", "transformers": "5.23.0"}  # fmt: skip
    command = ["/usr/bin/paretone", "evaluate", block["model"]["path"], "--data", "my data.jsonl"]
    return Result.model_validate_json(
        Result.model_construct(
            **block, **verdict, version="0.1.0", command=command, seed=0, created="2026-11-21T00:00:00Z",
            machine=machine, data=data, word_changes=changes,
        ).model_dump_json(warnings=False)
    )  # fmt: skip


def demo_results() -> list[Result]:
    """Two models, two methods, 10-60 %; a control, dropped layers, one without baseline, one without plan."""
    results = []
    for source, base in (("digits-hubert", 0.031), ("digits-whisper", 0.042)):
        for method, (place, sparsity) in itertools.product(("magnitude", "cluster"), enumerate(SPARSITIES)):
            settings = {"outgoing": "sum"} if method == "cluster" else {}
            plan = plan_of(source, method, sparsity, **settings)
            wer = base + ADDED_WER[method][place]
            results.append(result(source, wer=wer, base=base, share=1 - 0.62 * sparsity, plan=plan))
    source, base = "digits-hubert", 0.031
    control = plan_of(source, "random", 0.3)
    results.append(result(source, wer=base + ADDED_WER["random"][2], base=base, share=1 - 0.62 * 0.3, plan=control))
    results.append(result(source, wer=0.21, base=base, share=0.72, plan=plan_of(source, "depth", 1 / 3, keep="first")))
    unpaired = plan_of(source, "cluster", 0.5, outgoing="mean")
    results.append(result(source, wer=0.35, base=None, share=1 - 0.62 * 0.5 - 1e-5, plan=unpaired))
    results.append(result(source, wer=base, base=None))
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's results on disk, a folder each."""
    root = tmp_path_factory.mktemp("demo")
    for place, found in enumerate(demo_results()[2::5]):  # a sixth of them, to draw less
        (root / f"{place:02}").mkdir()
        write_result(found, root / f"{place:02}" / "result.json")
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    """The demo's page."""
    out = folder / "page" / "report.html"
    write_report([folder], out)
    return out


class Tags(HTMLParser):
    """Collects a page's tags and text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_markup_in_transcripts_shows_as_text(page: Path) -> None:
    tags = Tags(page.read_text())
    assert SCRIPT in "".join(tags.text)
    assert "script" not in {tag for tag, _ in tags.tags}


def test_markup_in_names_shows_as_text_in_page_and_plots(tmp_path: Path) -> None:
    evil = f'a"{SCRIPT}$x^$\x1b'
    plan = plan_of(evil, f"cluster{SCRIPT}", 0.5, key=SCRIPT)
    plan["modules"][0]["name"] = f"hubert.encoder.layers.0.{SCRIPT}"
    write_result(result(evil, wer=0.1, base=0.05, share=0.6, plan=plan), tmp_path / "result.json")
    write_report([tmp_path], tmp_path / "report.html")
    markup = (tmp_path / "report.html").read_text()
    assert "script" not in {tag for tag, _ in Tags(markup).tags}
    assert "\x1b" not in markup
    for svg in (tmp_path / "report_files").glob("*.svg"):
        root = ET.parse(svg).getroot()
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        assert "alert(1)" in "".join(root.itertext())


def test_the_page_loads_nothing(page: Path) -> None:
    markup = page.read_text()
    assert "http://" not in markup
    assert "https://" not in markup
    tags = Tags(markup).tags
    assert not {tag for tag, _ in tags} & {"link", "script", "img", "iframe", "object", "image"}
    assert not [attrs for _, attrs in tags if "src" in attrs or "srcset" in attrs]
    links = [str(attrs["href"]) for tag, attrs in tags if tag == "a"]
    assert sorted(set(links)) == sorted(f"report_files/{f.name}" for f in page.parent.glob("report_files/*"))
    assert not re.search(r"@import|url\((?!#)", markup)


def test_ids_are_unique_and_references_resolve(page: Path) -> None:
    markup = page.read_text()
    ids = [attrs["id"] for _, attrs in Tags(markup).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", markup)) <= set(ids)
    named = [name for _, attrs in Tags(markup).tags for name in (attrs.get("aria-labelledby") or "").split()]
    assert set(named) <= set(ids)


def test_tables_have_headers_and_pictures_have_words(page: Path) -> None:
    tags = Tags(page.read_text()).tags
    assert all(attrs.get("scope") for tag, attrs in tags if tag == "th")
    pictures = [attrs for tag, attrs in tags if tag == "svg"]
    assert len(pictures) == 6
    assert all(attrs.get("role") == "img" and attrs.get("aria-labelledby") for attrs in pictures)


def test_plots_exist_as_svg_and_png(page: Path) -> None:
    for name in ("pareto", "errors", "widths"):
        ET.parse(page.parent / "report_files" / f"{name}.svg")
        assert (page.parent / "report_files" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_redraw_gives_the_same_bytes_in_any_order(folder: Path, page: Path, tmp_path: Path) -> None:
    write_report(sorted(folder.glob("*/result.json"), reverse=True), tmp_path / "report.html")
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 7
    for file in files:
        assert (tmp_path / file).read_bytes() == (page.parent / file).read_bytes(), file


def test_the_page_shows_settings_commands_and_exact_sizes(page: Path) -> None:
    text = "".join(Tags(page.read_text()).text)
    assert "outgoing=sum" in text
    assert "1,930,784" in text
    assert "paretone evaluate demo/digits-whisper/cluster-69 --data 'my data.jsonl'" in text
    assert "--method cluster --sparsity 0.5 --set outgoing=sum --seed 0" in text
    assert "bad.flac (silent)" in text


def test_the_headline_counts_a_cost_by_the_upper_end_of_its_interval() -> None:
    # cluster at 40 % adds 1.0 points with 1.7 as upper end, at 50 % 4.5 points: outside 2 points by any reading
    hubert = next(study for study in studies(demo_results()) if study.name == "digits-hubert")
    story = tell(hubert)
    assert story.pick is not None
    assert story.pick.asked == "40\N{NO-BREAK SPACE}%"
    assert story.headline.startswith(
        "cluster takes digits-hubert to 75\N{NO-BREAK SPACE}% of its parameters within 2 points"
    )
    assert story.reach["random"] == (None, None, None)


def test_methods_are_told_apart_only_where_intervals_do_not_overlap() -> None:
    hubert = next(study for study in studies(demo_results()) if study.name == "digits-hubert")
    sentence = next(
        s for s in tell(hubert).sentences if s.startswith("cluster, outgoing=sum makes fewer errors than magn")
    )
    wins, overlap = sentence.replace("\N{NO-BREAK SPACE}", " ").split("; ")
    assert wins.endswith("at 30 %, 40 %, 50 % and 60 % sparsity")
    assert overlap == "at 10 % and 20 % their intervals overlap."


@pytest.mark.parametrize(("better_share", "told"), [(0.5, True), (0.69, True), (0.71, True), (0.74, False)])
def test_a_better_model_wins_at_its_size_or_a_smaller_one(better_share: float, told: bool) -> None:
    models = [("cluster", better_share, 0.031), ("magnitude", 0.7, 0.2)]
    runs = [
        result("digits-hubert", wer=wer, base=0.031, share=share, plan=plan_of("digits-hubert", method, 0.3))
        for method, share, wer in models
    ]
    sentences = [s.replace("\N{NO-BREAK SPACE}", " ") for s in tell(studies(runs)[0]).sentences]
    assert ("cluster makes fewer errors than magnitude at 30 % sparsity." in sentences) == told
    assert any("magnitude makes fewer" in s or "intervals of" in s for s in sentences) is False


def test_a_lucky_small_model_behind_a_failed_one_does_not_make_the_headline() -> None:
    sizes = [(0.1, 0.9, 0.5), (0.5, 0.7, 0.031)]  # sparsity, share, WER: half costs nothing, a tenth everything
    runs = [
        result("digits-hubert", wer=wer, base=0.03, share=share, plan=plan_of("digits-hubert", "cluster", sparsity))
        for sparsity, share, wer in sizes
    ]
    story = tell(studies(runs)[0])
    assert story.headline.startswith("every compressed digits-hubert may cost more than 5 points")


def test_the_page_tells_both_tests_and_what_the_data_cannot_show(page: Path) -> None:
    text = " ".join("".join(Tags(page.read_text()).text).replace("\N{NO-BREAK SPACE}", " ").split())
    assert "< 0.001 0.046" in text
    assert "0.400 0.300" in text
    assert "With this test set no change below 0.9 points of WER can be seen reliably, and none below" in text


def test_what_cannot_be_seen_is_told_once_where_all_comparisons_agree() -> None:
    plans = {share: plan_of("digits-hubert", "cluster", 1 - share) for share in (0.8, 0.9)}
    runs = [result("digits-hubert", wer=0.031, base=0.031, share=share, plan=plan) for share, plan in plans.items()]
    assert tell(studies(runs)[0]).sentences[-1] == (
        "With this test set no change below 0.8 points of WER can be seen reliably."
    )


def test_results_of_older_versions_are_read_and_drawn(tmp_path: Path) -> None:
    new = result("digits-hubert", wer=0.1, base=0.05, share=0.6, plan=plan_of("digits-hubert", "cluster", 0.5))
    later = {"p_mapsswe", "mapsswe_z", "mapsswe_segments", "detectable_delta_wer"}
    fields = dict.fromkeys(later, True) | {"by_length": True, "baseline": {"by_length"}}
    (tmp_path / "result.json").write_text(new.model_dump_json(exclude=fields))
    assert "by_length" not in (tmp_path / "result.json").read_text()
    (old,) = read_results([tmp_path])
    assert old.by_length == {}
    assert (old.p_value, old.p_mapsswe, old.detectable_delta_wer) == (new.p_value, None, None)
    write_report([tmp_path], tmp_path / "report.html")
    assert "can be seen reliably" not in (tmp_path / "report.html").read_text()
    assert "?" in terminal_text([old])  # one test of two


def test_different_data_or_normalisers_never_share_a_plot() -> None:
    first = result("digits-hubert", wer=0.03, base=None)
    second = first.model_copy(update={"normaliser": "basic/1"})
    names = [study.name for study in studies([first, second])]
    assert names == ["digits-hubert on digits (whisper-english/1)", "digits-hubert on digits (basic/1)"]


def test_the_baseline_is_listed_once_and_shares_are_of_it() -> None:
    hubert = next(study for study in studies(demo_results()) if study.name == "digits-hubert")
    assert [entry.is_original for entry in hubert.entries].count(True) == 1
    assert hubert.entries[0].is_original
    half = next(entry for entry in hubert.entries if entry.label.startswith("magnitude 50"))
    assert half.share == pytest.approx(1 - 0.31, abs=1e-6)


def test_settings_that_differ_make_lines_of_their_own() -> None:
    hubert = next(study for study in studies(demo_results()) if study.name == "digits-hubert")
    assert set(hubert.series) == {"cluster, outgoing=mean", "cluster, outgoing=sum", "depth", "magnitude", "random"}


@pytest.mark.parametrize("words", [0.0, 3.5])
def test_a_perfect_and_an_exploded_model_can_be_drawn(tmp_path: Path, words: float) -> None:
    plan = plan_of("digits-hubert", "cluster", 0.5)
    write_result(result("digits-hubert", wer=words, base=0.0, share=0.6, plan=plan), tmp_path / "result.json")
    write_report([tmp_path / "result.json"], tmp_path / "deep" / "report.html")
    assert (tmp_path / "deep" / "report_files" / "pareto.png").exists()


def test_a_plan_that_flags_cannot_say_is_shown_whole(tmp_path: Path) -> None:
    plan = plan_of("digits-hubert", "cluster", 0.5)
    plan["steps"].append({"method": "depth", "sparsity": None, "settings": {"layers": [0, 1]}})
    write_result(result("digits-hubert", wer=0.1, base=0.05, share=0.6, plan=plan), tmp_path / "result.json")
    write_report([tmp_path], tmp_path / "report.html")
    text = "".join(Tags((tmp_path / "report.html").read_text()).text)
    assert "paretone compress digits-hubert demo/digits-hubert/cluster-60 --plan plan-1.json" in text
    assert '"method": "depth"' in text


def terminal_text(runs: list[Result]) -> str:
    """The table as a terminal of 80 columns shows it."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(runs))
    return console.export_text()


def said(tmp_path: Path, plan: dict[str, Any]) -> str:
    """The text of a page about one model of this plan."""
    write_result(result("digits-hubert", wer=0.1, base=0.05, share=0.6, plan=plan), tmp_path / "result.json")
    write_report([tmp_path], tmp_path / "report.html")
    return "".join(Tags((tmp_path / "report.html").read_text()).text).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("step", "flags"),
    [
        ({"preset": "best", "allocation": "error", "sparsity": 0.5}, "--preset best --sparsity 0.5"),
        ({"allocation": "variance-tiers", "target_bytes": 0.7}, "--allocation variance-tiers --target-bytes 0.7"),
        ({"target_macs": 0.7}, "--method cluster --target-macs 0.7"),
        ({"target_params": 0.7, "units": "ffn"}, "--method cluster --target-params 0.7 --units ffn"),
    ],
)
def test_flags_say_unequal_widths_where_the_plan_records_that_they_lead_there(
    tmp_path: Path, step: dict[str, Any], flags: str
) -> None:
    plan = plan_of("digits-hubert", "cluster", 0.5)
    plan["modules"][1]["width_after"] = 500  # no equal share
    plan["steps"][0] |= {"sparsity": None, "recipe_only": {}} | step
    assert flags in said(tmp_path, plan)


@pytest.mark.parametrize("recipe_only", [None, {"rules": [{"match": "*.0.*", "sparsity": 0}]}, {"multiple": 8}])
def test_what_has_no_flag_makes_the_page_show_the_plan(tmp_path: Path, recipe_only: dict[str, Any] | None) -> None:
    plan = plan_of("digits-hubert", "cluster", 0.5)
    plan["steps"][0] |= {"allocation": "error", "recipe_only": recipe_only}
    assert "--plan plan-1.json" in said(tmp_path, plan)


def test_a_preset_an_allocation_and_every_budget_have_their_names_in_the_table(tmp_path: Path) -> None:
    plan = plan_of("digits-hubert", "cluster", 0.5)
    plan["steps"][0] |= {"sparsity": None, "target_bytes": 0.7, "allocation": "variance-tiers"}
    assert "cluster by variance-tiers bytes to 70 %" in said(tmp_path, plan)
    plan["steps"][0] |= {"target_bytes": None, "target_macs": 0.7, "preset": "paper"}
    assert "paper MACs to 70 %" in said(tmp_path, plan)


def test_heads_cut_to_fewer_rows_are_another_set_of_widths(tmp_path: Path) -> None:
    plans = [plan_of("digits-hubert", "cluster", sparsity) for sparsity in (0.1, 0.2)]
    for plan, rows in zip(plans, (9, 6), strict=True):
        for module in plan["modules"]:
            heads = {"width_after": 8, "head_dim_before": 18, "head_dim_after": rows}
            module |= heads if module["kind"] == "heads" else {"width_after": module["width_before"]}
    runs = [result("digits-hubert", wer=0.1, base=0.05, share=0.9 - w / 9, plan=p) for w, p in enumerate(plans)]
    rows = profiles(studies(runs)[0])
    assert [row.widths["hubert.encoder.layers.0.attention"].text for row in rows] == ["8×9", "8×6"]
    assert [row.widths["hubert.encoder.layers.0.attention"].kept for row in rows] == [1 / 2, 1 / 3]
    assert "8×9" in said(tmp_path, plans[0])


def chain_of(methods: tuple[str, ...], wers: tuple[float, ...]) -> list[Result]:
    """Results of a recipe's steps, one after the other."""
    runs, steps = [], []
    for place, (method, wer) in enumerate(zip(methods, wers, strict=True)):
        plan = plan_of("digits-hubert", method, 0.1 * (place + 1))
        steps = [*steps, *plan["steps"]]
        plan["steps"] = steps
        found = result("digits-hubert", wer=wer, base=0.03, share=0.9 - 0.1 * place, plan=plan)
        model = found.model.model_copy(update={"digest": f"sha256:{method}{place}"})
        runs.append(found.model_copy(update={"model": model}))
    return runs


def test_steps_measured_one_after_another_make_a_chain_in_any_order() -> None:
    runs = chain_of(("depth", "cluster", "magnitude"), (0.05, 0.04, 0.10))
    (chain,) = chains(studies([runs[2], runs[0], runs[1]])[0])
    assert [stage.name.split()[0] for stage in chain.stages] == ["depth", "cluster", "magnitude"]
    found = [stage.entry.measures.wer for stage in chain.stages]
    assert found == [run.wer for run in runs]
    deltas = [stage.delta_wer for stage in chain.stages]
    assert sum(deltas) == pytest.approx(runs[2].wer - chain.original.measures.wer)
    assert deltas[1] < 0 < deltas[2]
    assert chain.stages[0].speed == pytest.approx(1 / (0.3 + 0.7 * 0.9))


def test_models_of_one_step_and_models_of_other_steps_make_no_chain() -> None:
    assert chains(studies(demo_results())[0]) == []
    first, second = chain_of(("depth", "cluster"), (0.05, 0.08))
    plan = {**(second.model.plan or {}), "steps": (second.model.plan or {})["steps"][::-1]}
    other = second.model_copy(update={"model": second.model.model_copy(update={"plan": plan})})
    assert chains(studies([first, other])[0]) == []


def test_a_chain_is_drawn_on_the_page_and_as_files(tmp_path: Path) -> None:
    runs = [
        *chain_of(("depth", "cluster", "magnitude"), (0.05, 0.04, 0.10)),
        result("digits-whisper", wer=0.1, base=None),
    ]
    for place, run in enumerate(runs):
        write_result(run, tmp_path / str(place) / "result.json")
    write_report([tmp_path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("What each step added to the WER of") == 1  # the other model has no steps
    ET.parse(tmp_path / "report_files" / "waterfall.svg")
    assert "−1.1" in "".join(Tags(page).text)  # 36 errors after 46, of 912 words


def test_the_terminal_table_marks_what_both_tests_or_one_of_them_find() -> None:
    text = terminal_text(demo_results())
    assert "+1.0? (0.3..1.7)" in text
    assert "+4.5* (3.3..5.7)" in text
    assert "+0.3 (" in text
    assert "* p < 0.05 by paired bootstrap and MAPSSWE, ? by one of the two" in text
    assert "MAPSSWE" not in terminal_text([result("digits-hubert", wer=0.1, base=None)])


def test_the_terminal_table_fits_eighty_columns_and_shows_names_as_they_are() -> None:
    runs = [*demo_results(), result("[red]tiny[/red]", wer=0.1, base=None)]
    text = terminal_text(runs)
    assert "…" not in text
    assert "[red]tiny[/red]" in text
    assert re.search(r"magnitude 50%\s+1\.33M\s+69%\s+45\.1 \(", text)


def in_languages(found: Any, errors: dict[str, tuple[int, int, int, int]]) -> Any:
    """Measures with these substitutions, deletions, insertions and words of each language."""
    groups = {}
    for name, (s, d, i, words) in errors.items():
        wer = (s + d + i) / words if words else None
        kinds = {"substitutions": s, "deletions": d, "insertions": i}
        groups[name] = GroupScores(wer=wer, words=words, utterances=102, **kinds)
    return found.model_copy(update={"by_language": groups})


def speech_llm(guards: dict[str, int] | None = None, *, base: float | None = 0.2) -> Result:
    """A speech LLM in two languages, as `evaluate` records it, beside a model that is none."""
    found = result("digits-whisper", wer=0.1, base=base)
    info = found.model.model_copy(update={"name": "slam/merged", "path": "slam/merged", "digest": "sha256:s1a"})
    decoding = {"method": "generate, 4 beams"} | ({} if guards is None else {"guards": guards})
    parts = {"encoder": 88_154_112, "projector": 12_345_678, "language_model": 1_235_814_400}
    sizes = {"parameters": sum(parts.values()), "parts": parts, "size_bytes": 5_345_256_760}
    found = found.model_copy(update={"model": info, "decoding": decoding, **sizes})
    if found.baseline:
        before = in_languages(found.baseline, {"da": (60, 10, 10, 400), "nl": (50, 40, 12, 512)})
        found = found.model_copy(update={"baseline": before})
    return in_languages(found, {"da": (11, 22, 7, 400), "nl": (20, 17, 14, 512)})


def cells(markup: str, heading: str) -> list[list[str]]:
    """The rows of the table under a heading, as text."""
    table = markup.partition(f"{heading}</h3>")[2].partition("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def drawn(tmp_path: Path, *runs: Result) -> str:
    """The markup of a page about results."""
    for place, run in enumerate(runs):
        write_result(run, tmp_path / str(place) / "result.json")
    write_report([tmp_path], tmp_path / "report.html")
    return (tmp_path / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")


def test_a_speech_llm_shows_its_parts_and_guards(tmp_path: Path) -> None:
    page = drawn(tmp_path, speech_llm({"silence": 3, "unfinished": 2}), result("digits-hubert", wer=0.1, base=0.05))
    assert page.count("parts and guards</h3>") == 1  # the other model is none
    assert cells(page, "parts and guards")[1:] == [
        ["encoder", "encoder + projector", "whole system", "silence", "loops", "unfinished"],
        ["slam/merged", "88,154,112", "100,499,790", "1,336,314,190", "3", "0", "2"],
    ]
    assert "generate, 4 beams" in page
    assert "{&#39;silence" not in page  # under Data stands what was asked for


def test_a_speech_llm_shows_kinds_of_errors_by_language_beside_the_baseline(tmp_path: Path) -> None:
    found = cells(drawn(tmp_path, speech_llm()), "kinds of errors by language")
    assert found[2:5] == [
        ["slam/merged"],
        ["da", "400", "11", "22", "7", "10.0 %", "60", "10", "10", "20.0 %", "−10.0"],
        ["nl", "512", "20", "17", "14", "10.0 %", "50", "40", "12", "19.9 %", "−10.0"],
    ]
    assert found[5][:2] == ["all", "912"]
    assert found[5][-1] == "−10.0"  # 91 errors after 182, of 912 words


def test_a_speech_llm_is_not_called_a_compressed_model(tmp_path: Path) -> None:
    page = drawn(tmp_path, speech_llm())
    assert re.search(r"<h1>Slam/merged beside digits-whisper: .\S+ to .\S+ points of WER</h1>", page)
    assert "Smallest model" not in page


def test_errors_by_length_of_recording_are_shown_shortest_first(tmp_path: Path) -> None:
    found = in_languages(
        result("digits-whisper", wer=0.1, base=None), {"10-20 s": (1, 2, 3, 60), "2-5 s": (1, 0, 0, 50)}
    )
    lengths = found.model_copy(update={"by_length": found.by_language, "by_language": {}})
    page = drawn(tmp_path, lengths)
    assert '<h2 id="speakers">Speakers, lengths</h2>' in page
    rows = [row[:3] for row in cells(page, "WER per length of recording, %")[1:]]
    assert rows == [["2-5 s", "50", "2.0"], ["10-20 s", "60", "10.0"]]


def test_a_speech_llm_without_baseline_has_no_columns_for_one(tmp_path: Path) -> None:
    page = drawn(tmp_path, speech_llm(base=None))
    found = cells(page, "kinds of errors by language")
    assert found[0] == ["language", "words", "S", "D", "I", "WER"]
    assert found[2] == ["da", "400", "11", "22", "7", "10.0 %"]
    assert cells(page, "parts and guards")[2][-3:] == ["–", "–", "–"]  # not recorded


def test_a_speech_llm_known_as_a_baseline_only_is_shown_too(tmp_path: Path) -> None:
    slam = speech_llm({"silence": 0, "loops": 0, "unfinished": 1}, base=None)
    before = Measures.model_validate({name: getattr(slam, name) for name in Measures.model_fields})
    run = result("digits-whisper", wer=0.3, base=0.1).model_copy(update={"baseline": before})
    page = drawn(tmp_path, run)
    assert cells(page, "parts and guards")[2][-3:] == ["0", "0", "1"]
    assert len(cells(page, "kinds of errors by language")[0]) == 6


def test_one_language_without_baseline_leaves_nothing_to_split(tmp_path: Path) -> None:
    alone = in_languages(speech_llm(base=None), {"da": (30, 31, 30, 912)})
    page = drawn(tmp_path, alone)
    assert "parts and guards" in page
    assert "kinds of errors by language" not in page


def test_a_page_without_speech_llms_has_no_section_for_them(page: Path) -> None:
    assert "Speech LLMs" not in page.read_text()


def printed(found: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What ``paretone evaluate`` prints behind its table."""
    monkeypatch.setattr(paretone.evaluation, "evaluate", lambda *_, **__: found)
    measuring.evaluate("slam/merged", "digits")
    lines = capsys.readouterr().out.splitlines()
    (start,) = [place for place, line in enumerate(lines) if line.startswith("normaliser ")]
    return lines[start + 1 :]


def test_the_terminal_tells_languages_and_guards(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(speech_llm({"silence": 3, "loops": 0, "unfinished": 2}), monkeypatch, capsys)
    assert lines[:2] == [
        "WER by language: da 10.00% (-10.00 points), nl 9.96% (-9.96 points)",  # 51 errors after 102, of 512 words
        "guards: silence 3, unfinished 2",
    ]
    assert lines[2].startswith("against ")


def test_the_terminal_is_silent_on_one_language_and_on_guards_that_never_held(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = in_languages(speech_llm({"silence": 0, "loops": 0, "unfinished": 0}, base=None), {"da": (30, 31, 30, 912)})
    assert printed(alone, monkeypatch, capsys) == []
    mute = in_languages(alone, {"da": (30, 31, 30, 912), "nl": (0, 0, 2, 0)})
    assert printed(mute, monkeypatch, capsys) == ["WER by language: da 9.98%, nl no words"]


def test_the_terminal_names_the_guards_of_a_baseline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = speech_llm({"silence": 1})
    before = found.baseline and found.baseline.model_copy(update={"decoding": {"guards": {"loops": 4}}})
    lines = printed(found.model_copy(update={"baseline": before}), monkeypatch, capsys)
    assert lines[1] == "guards: silence 1; baseline loops 4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "not a Result"),
        ('{"format": 1}', "not a Result"),
        ("[1, 2", "not a Result"),
        ("format 2", "format"),
        ("plan", "plan that cannot be read"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "result.json"
    good = result("digits-hubert", wer=0.1, base=None)
    if content == "format 2":
        content = good.model_dump_json().replace('"format":1', '"format":2')
    elif content == "plan":
        model = good.model.model_copy(update={"plan": {"steps": "none"}})
        content = good.model_copy(update={"model": model}).model_dump_json()
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        write_report([file], tmp_path / "report.html")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ([] if content is None else ["result.json"])


def test_a_folder_without_results_and_a_folder_as_page_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no result\.json in this folder"):
        read_results([tmp_path])
    with pytest.raises(UserError, match="is a folder"):
        write_report([folder], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report([folder], tmp_path / "file" / "report.html")
