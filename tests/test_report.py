"""The report says what the summary says, from two files, and needs nothing outside itself."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import fakes
import pytest

from diet_jax.report import build_report, render
from diet_jax.summary import summarize
from diet_jax.types import InputError

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects ids, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.attributes, self.tags, self.texts = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def workdir(path, records, config=fakes.CONFIG):
    (path / "config.json").write_text(json.dumps(config))
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@pytest.fixture(scope="module")
def html():
    return render(fakes.CONFIG, fakes.run_records())


def test_it_says_the_headline_numbers(html):
    text, found = Page(html).text, summarize(fakes.run_records())
    overall = found["overall"]
    for value in (overall["R"]["mean_of_ratios"], overall["R_soft"]["ratio_of_means"]):
        assert f"{value:.2f}" in text
    for method in fakes.METHODS:
        assert f"{overall['auc'][method]:.4f}" in text
    assert f"{overall['tau']['memory']:.2f} Kendall tau" in text
    assert "MovieLens latest-small" in text and "8 stages, 7 distilled" in text
    assert "LR, FM, MLP, DeepFM, DCNv2 · 3 seeds" in text
    assert f"pays for itself at {found['cost']['break_even']:.1f} trials" in text
    assert "not finished" not in text


def test_it_has_every_figure_and_table(html):
    page = Page(html)
    assert page.tags.count("svg") == 5 and page.tags.count("figcaption") == 5
    for heading in ("Fidelity", "Gap recovery", "Rank agreement", "Cost", "The memory", "Outer"):
        assert heading in page.text
    assert page.tags.count("tr") > 7 * 5 * 4
    assert "memory.rate" in page.text


def test_it_needs_nothing_outside_itself(html):
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.search(r"\w+://|@import|url\((?!#)", html)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    links = [value for name, value in page.attributes if name in ("href", "xlink:href", "src")]
    assert links and all(link.startswith("#") and link[1:] in page.ids for link in links)
    assert len(page.ids) == len(set(page.ids))
    used = re.findall(r"url\(#([^)]*)\)", html)
    assert set(used) <= set(page.ids)


def test_absolute_paths_stay_at_home(html):
    assert "/srv/logs" not in html and "…/ml.zip" in html


def test_it_is_the_same_every_time(html):
    assert render(fakes.CONFIG, fakes.run_records()) == html


def test_names_from_outside_cannot_become_markup():
    config = {"data": {"source": "table", "name": "<script>alert(1)</script>"}}
    records = fakes.stage_records(1, archs=("<b>A</b>", "C & D"))
    html = render(config, records)
    page = Page(html)
    assert "script" not in page.tags and "b" in page.tags
    assert "<b>A" not in html
    assert "Distilled memory of <script>alert(1)</script>" in page.text


@pytest.mark.parametrize("stages", [2, 8])
def test_it_says_what_judged(stages):
    following = "scored on the next", "scored on the following one", "AUC on the stage that follows"
    of_the_same = "on their validation rows", "scored on validation rows", "AUC on validation rows"
    ways = {"next": (*following, "AUC on the next stage"), "validation": of_the_same}
    for on, other in (("next", "validation"), ("validation", "next")):
        records = fakes.run_records(stages)
        records = fakes.beside_the_past(records) if on == "next" else records
        text = Page(render(fakes.CONFIG, records)).text
        assert all(words in text for words in ways[on])
        assert not any(words in text for words in ways[other])


def test_a_log_without_a_name_is_called_by_its_source():
    config = {"data": {"source": "criteo", "name": ""}}
    assert "Distilled memory of criteo " in Page(render(config, fakes.stage_records(1))).text


def test_trainings_that_died_are_named(html):
    assert "died" not in Page(html).text
    records = fakes.run_records()
    next(r for r in records if r["kind"] == "eval").update(auc=0.5, gauc=0.5)
    text = Page(render(fakes.CONFIG, records)).text
    assert "Trainings that died, their model ordering no rows: 1." in text


def test_an_unfinished_run_is_reported_as_such(tmp_path):
    page = Page(build_report(workdir(tmp_path, fakes.run_records(done=3))).read_text())
    assert "The run is not finished. 3 of 8 stages are done" in page.text
    assert page.tags.count("svg") == 5


def test_a_run_without_a_stage_shows_its_config(tmp_path):
    page = Page(build_report(workdir(tmp_path, fakes.outer_records(1))).read_text())
    assert "No stage is done yet" in page.text and "memory.rate" in page.text
    assert page.tags.count("svg") == 0


@pytest.mark.parametrize(
    "records",
    [
        fakes.run_records(stages=2, seeds=(0,)),
        fakes.run_records(stages=3, archs=("LR",)),
        [r for r in fakes.run_records(stages=3) if r.get("method") != "random_soft"],
        [r for r in fakes.run_records(stages=3) if r["kind"] != "eval"],
    ],
    ids=["one stage and seed", "one architecture", "no teacher", "never scored"],
)
def test_small_runs_have_a_report(records):
    page = Page(render(fakes.CONFIG, records))
    assert "nan" not in page.text.lower().split()


def test_it_is_written_whole(tmp_path):
    path = build_report(workdir(tmp_path, fakes.run_records(stages=2)))
    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("config.json", "metrics.jsonl", "report.html")
    ]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="config.json"):
        build_report(tmp_path / "nothing")


def test_report_and_summary_import_no_jax(tmp_path):
    workdir(tmp_path, fakes.run_records(stages=2))
    code = (
        "import sys; import diet_jax.console, diet_jax.record, diet_jax.summary;"
        "from diet_jax.report import build_report; build_report(sys.argv[1]);"
        "print([m for m in ('jax', 'jaxlib', 'tensorflow', 'flax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
