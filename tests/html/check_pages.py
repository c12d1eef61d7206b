#!/usr/bin/env python3
"""check_pages.py BIN: pages of compare and sweep in headless Chromium. Exit 77 (skipped) where there is none, or where
the build has no chart library. Python's standard library only.

No error on the console, every chart drawn, the numbers those of the JSON, tables for every chart, dark mode, print.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULT = ROOT / "results/cpu/tiny-vl-full.json"
SWEEP = {
    "model": "datasets/models/qwen3-vl-tiny",
    "engine": {"device": "cpu", "max_model_len": 4096, "max_num_batched_tokens": 512, "block_size": 16,
               "cpu_kv_cache_gib": 0.06, "cpu_threads": 1, "limit_mm_per_prompt": {"image": 2}},
    "calibration": {"num_samples": 2},
    "workload": {"dataset": "random", "input_len": 8, "output_len": 4, "num_prompts": 2, "trials": 3,
                 "warmup_prompts": 0},
    "quality": {"num_samples": 4},
    "axes": {"engine.max_num_seqs": [2, 4], "engine.enable_prefix_caching": [False, True]},
}

# Runs in a copy of the page; what it finds becomes part of the document, which Chromium prints.
BEFORE = """<script>window.found = [];
addEventListener("error", (event) => found.push("error: " + event.message));
addEventListener("unhandledrejection", (event) => found.push("rejected: " + event.reason));
for (const name of ["error", "warn"]) console[name] = (...words) => found.push(name + ": " + words.join(" "));</script>"""
AFTER = """<script>(() => {
  const charts = [...document.querySelectorAll("canvas")].map((canvas) => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const colors = new Set();
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3]) colors.add(pixels.slice(i, i + 3).join());
    const chart = Chart.getChart(canvas), figure = canvas.closest("figure");
    return {id: canvas.id, colors: colors.size, label: canvas.getAttribute("aria-label"), role: canvas.getAttribute("role"),
            data: chart ? chart.data.datasets.map((d) => ({label: d.label, data: d.data, centers: d.centers})) : null,
            categories: chart ? chart.data.labels : null,
            caption: figure.querySelector("caption")?.textContent, summary: !!figure.querySelector("summary"),
            rows: figure.querySelectorAll("tbody tr").length, scopes: figure.querySelectorAll("th[scope]").length,
            region: figure.querySelector("[role=region][tabindex]") !== null};
  });
  const report = document.createElement("pre");
  report.id = "report";
  report.textContent = JSON.stringify({found, charts, paper: getComputedStyle(document.body).backgroundColor,
                                       lang: document.documentElement.lang, drawn: document.documentElement.dataset.charts});
  document.body.append(report);
})();</script>"""


def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    print("skipped: no Chromium here (package chromium)")
    sys.exit(77)


class Browser:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def run(self, *arguments):
        done = subprocess.run(
            [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900",
             f"--user-data-dir={self.folder / 'profile'}", "--virtual-time-budget=5000", "--enable-logging=stderr", *arguments],
            capture_output=True, text=True, timeout=150)
        if done.returncode != 0:
            print("skipped: Chromium does not start here:", done.stderr.strip().splitlines()[-1:])
            sys.exit(77)
        return done

    def look(self, page, *arguments):
        """What the page looks like to a script in it."""
        copy = self.folder / "checked.html"
        text = page.read_text()
        copy.write_text(text.replace("<head>", "<head>" + BEFORE, 1).replace("</body>", AFTER + "</body>"))
        done = self.run("--dump-dom", *arguments, copy.as_uri())
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert not console, console
        match = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.S)
        assert match, "the page's scripts did not run to their end"
        text = match.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return json.loads(text)


def check_page(browser, page):
    text = page.read_text()
    assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', text), "the page asks the network"
    seen = browser.look(page)
    assert seen["found"] == [], seen["found"]
    assert seen["lang"] == "en" and int(seen["drawn"]) == len(seen["charts"]) > 0
    for chart in seen["charts"]:
        assert chart["colors"] > 3, f"{chart['id']} is blank"
        assert chart["role"] == "img" and chart["label"] and chart["caption"] and chart["region"], chart["id"]
        assert chart["rows"] > 0 and chart["scopes"] > chart["rows"], chart["id"]
    dark = browser.look(page, "--blink-settings=preferredColorScheme=0")
    brightness = [sum(map(int, re.findall(r"\d+", one["paper"])[:3])) for one in (seen, dark)]
    assert brightness[0] > 700 and brightness[1] < 100, brightness
    assert all(chart["colors"] > 3 for chart in dark["charts"])
    paper = browser.folder / "page.pdf"
    browser.run(f"--print-to-pdf={paper}", page.as_uri())
    assert paper.read_bytes().startswith(b"%PDF") and paper.stat().st_size > 20000
    return {chart["id"]: chart for chart in seen["charts"]}


def near(a, b):
    return abs(a - b) <= 1e-9 * max(1, abs(a), abs(b))


def check_compare(browser, program, folder):
    page, other = folder / "compare.html", folder / "compare.json"
    done = subprocess.run([program, "compare", RESULT, "--format", "json", "-o", other, "--html", page],
                          capture_output=True, text=True)
    if "no chart library" in done.stderr:
        print("skipped:", done.stderr.strip())
        sys.exit(77)
    assert done.returncode == 1, done.stderr
    charts, comparison, result = check_page(browser, page), json.loads(other.read_text()), json.loads(RESULT.read_text())

    changes = [entry["change"] for line in comparison["lines"] for entry in line["entries"]
               if "change" in entry and entry["change"]["relative"] and not entry["change"]["identical"]]
    drawn = charts["changes"]["data"][0]
    assert len(changes) == len(drawn["data"]) > 0
    for change, (low, high), center in zip(changes, drawn["data"], drawn["centers"]):
        assert near(100 * change["ci_low"], low) and near(100 * change["ci_high"], high)
        assert near(100 * change["change"], center)

    for variant, series in zip(result["variants"], charts["throughput"]["data"]):
        expected = [(trial["median_ttft_ms"], trial["output_throughput"]) for trial in variant["trials"]]
        assert all(near(x, p["x"]) and near(y, p["y"]) for (x, y), p in zip(expected, series["data"]))
        assert len(expected) == len(series["data"])
    for variant, series in zip(result["variants"], charts["ttft"]["data"]):
        # The file's raw samples are rounded to 100 ns.
        assert abs(series["data"][50]["x"] - variant["median_ttft_ms"]) < 1e-3, "the distribution's median"
    for variant, series in zip(result["variants"], charts["position"]["data"]):
        buckets = variant["quality"]["by_position"]
        assert [(b["from"], b["kld_mean"]) for b in buckets] == [(p["x"], p["y"]) for p in series["data"]]
    saturated = {(point["y"], point["x"]): point["value"] for point in charts["saturated"]["data"][0]["data"]}
    rows = [[layer[key] for layer in variant["kv_scales"]["layers"]] for variant in result["variants"][1:]
            for key in ("k_saturated", "v_saturated")]
    assert saturated == {(y, x): value for y, row in enumerate(rows) for x, value in enumerate(row)}


def check_sweep(browser, program, folder):
    (folder / "sweep.json").write_text(json.dumps(SWEEP))
    page, out = folder / "sweep.html", folder / "out"
    done = subprocess.run([program, "sweep", folder / "sweep.json", "-q", "-o", out, "--html", page], capture_output=True,
                          text=True)
    assert done.returncode in (0, 1), done.stderr
    charts, summary = check_page(browser, page), json.loads((out / "summary.json").read_text())
    drawn = {series["label"]: {(p["x"], p["y"]) for p in series["data"]} for series in charts["front"]["data"]}
    for name, on_front in (("Pareto front", True), ("dominated", False)):
        expected = {(c["metrics"]["median_ttft_ms"], c["metrics"]["output_throughput"]) for c in summary["candidates"]
                    if c["pareto_front"] == on_front}
        assert drawn[name] == expected, name
    for metric in ("output_throughput", "median_ttft_ms"):
        effects = [effect for effect in summary["effects"] if effect["metric"] == metric]
        series = charts["effect-" + metric]["data"][0]
        assert len(effects) == len(series["data"]) == 2
        for effect, (low, high), center in zip(effects, series["data"], series["centers"]):
            assert near(100 * effect["ci_low"], low) and near(100 * effect["ci_high"], high)
            assert near(100 * effect["change"], center)


def main():
    program = os.path.join(sys.argv[1], "qwenbench")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        browser = Browser(chromium(), folder)
        check_compare(browser, program, folder)
        check_sweep(browser, program, folder)
    print("pages of compare and sweep: ok")


if __name__ == "__main__":
    main()
