"""What compare_llamacpp.py found, as text, Markdown and a plot."""
import html

SAME = 1e-3  # mean KL up to which two engines run the same model
BUSY = 0.05  # the share of the CPUs' time taken by others from which on a comparison means nothing


def number(x):
    return "" if x is None else f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def times(x):
    return "" if x is None else f"{x:.2f}x"


def percent(x):
    return "" if x is None else f"{100 * x:.0f} %"


def divergence(kl):
    return "" if kl is None else f"{kl:.1e}" if kl <= SAME else f"**{kl:.1e}: not the same model**"


def roofline_line(what, r):
    return (f"{what}: f32 {r['f32_gflops']:.0f}, bf16 {r['bf16_gflops']:.0f} GFLOP/s, int8 {r['int8_gops']:.0f} Gop/s, "
            f"read {r['read_gb_per_s']:.1f}, copy {r['copy_gb_per_s']:.1f} GB/s")


def spread(row):
    return "" if row["ratio"] is None else f"{row['ratio_least']:.2f}–{row['ratio_most']:.2f}"


def rounds(row):
    return max(len(row["krait"]), len(row["llama"]))


def test_name(row):
    """tg128 (40): measured over 40 steps alone."""
    return row["test"] + (f" ({row['count']})" if row["count"] not in (None, row["full"]) else "")


def line(row):
    """One cell, while it runs."""
    ours, theirs = number(row["krait_median"]) or "-", number(row["llama_median"]) or "-"
    text = f"{test_name(row):<15} krait {ours:>6}  llama.cpp {theirs:>6} tok/s"
    if row["ratio"] is not None:
        text += f"  {times(row['ratio'])} ({spread(row)}, {rounds(row)} rounds)"
    if row["roofline_share"] is not None:
        text += f"  {percent(row['roofline_share'])} of bound"
    return text + (f"  {row['note']}" if row["note"] else "")


def table(head, rows, left=1):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join(["---"] * left + ["---:"] * (len(head) - left)) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def grid(results):
    """Models down, tests and types across: Krait's tokens a second and the ratio."""
    rows = results["rows"]
    models, tests, types = (list(dict.fromkeys(r[k] for r in rows)) for k in ("model", "test", "type"))
    for test in tests:
        at = {(r["model"], r["type"]): r for r in rows if r["test"] == test}
        cells = []
        for model in models:
            found = [at[model, kind] for kind in types]
            best = max((r["llama_median"] for r in found if r["llama_median"]), default=None)
            ours = max((r["krait_median"] for r in found if r["krait_median"]), default=None)
            cells.append([model] + [f"{number(r['krait_median']) or '-'} / {number(r['llama_median']) or '-'}"
                                    + (f" = **{times(r['ratio'])}**" if r["ratio"] else "") for r in found]
                         + [times(ours / best) if ours and best else ""])
        yield f"\n### {test}\n"
        yield from table(["Krait / llama.cpp, tokens/s", *types, "best type / best type"], cells)


def markdown(results):
    k, l = results["krait"], results["llama"]
    out = ["# Krait and llama.cpp\n",
           f"{results['date']}, {k.get('cpu', 'CPU unknown')}, {results['threads']} threads on cores "
           f"{','.join(map(str, results['cores']))}, {results['minutes']:.0f} minutes.\n",
           f"- {k['version']}, {k.get('kernels', '?')}, compute {k.get('compute', '?')}"
           + (f", `{' '.join(results['krait_arguments'])}`" if results["krait_arguments"] else ""),
           f"- {l['version']}" + (f": {l['system']}" if l["system"] else ""),
           "- " + roofline_line("machine before", results["roofline_before"]),
           "- " + roofline_line("machine after", results["roofline_after"]),
           f"- other processes took {percent(results['load_of_others'])} of the CPUs' time"]
    if results["load_of_others"] > BUSY:
        out.append("- **The machine was busy. These figures count for nothing**: threads that wait for each other, as llama.cpp's,"
                   " suffer far more from it than others.")
    out += [f"- {n}" for n in results["notes"]]
    out += ["\nTokens a second are medians over the rounds, the ratio is the median of the rounds' ratios, with the least and the",
            "most. `tg128 (40)`: measured over 40 steps. Bound: weights once, states read and written, at the measured bandwidth,",
            "or the products at the measured peak, whichever is longer."]
    out += grid(results)
    out.append("\n### All figures\n")
    out += table(["model", "type", "test", "Krait", "of bound", "llama.cpp", "ratio", "least–most", "rounds"],
                 [[r["model"], r["type"], test_name(r), number(r["krait_median"]), percent(r["roofline_share"]),
                   number(r["llama_median"]), times(r["ratio"]), spread(r), str(rounds(r) or "")] for r in results["rows"]], 3)
    out.append("\n### Files\n")
    out += table(["model", "type", "made by", "MB", "mean KL of llama.cpp's logits from Krait's"],
                 [[f["model"], f["type"], f["made_by"], f"{f['bytes'] / 1e6:.1f}", divergence(f["kl"])]
                  for f in results["files"]], 3)
    missing = [f"- {r['model']} {r['type']} {r['test']}: {r['note']}" for r in results["rows"] if r["note"]]
    if missing:
        out += ["\n### Not measured\n", *dict.fromkeys(missing)]
    return "\n".join(out) + "\n"


COLOURS = ["#3b6ea8", "#d98032", "#5b9a5b", "#9a5b8f", "#777777"]
BAR, GAP, LABEL, WIDTH, TOP = 14, 8, 130, 330, 56


def panel(rows, types, x, y, most):
    """One test: a bar for each model and type, as long as the ratio; a whisker from the least to the most."""
    scale = WIDTH / most
    yield f'<text x="{x + LABEL}" y="{y - 8}" font-weight="bold">{html.escape(rows[0]["test"])}</text>'
    top = y
    for model in dict.fromkeys(r["model"] for r in rows):
        group = [r for r in rows if r["model"] == model]
        middle = y + BAR * len(group) / 2 + 4
        yield f'<text x="{x + LABEL - 8}" y="{middle:.0f}" text-anchor="end">{html.escape(model)}</text>'
        for r in group:
            start, end = x + LABEL, y + BAR - 3
            if r["ratio"] is None:
                said = f"{number(r['krait_median'])} tok/s, no peer" if r["krait_median"] else "not measured"
            else:
                colour = COLOURS[types.index(r["type"]) % len(COLOURS)]
                yield f'<rect x="{start}" y="{y + 1}" width="{r["ratio"] * scale:.1f}" height="{BAR - 2}" fill="{colour}"/>'
                yield (f'<path d="M{start + r["ratio_least"] * scale:.1f} {y + BAR / 2}H{start + r["ratio_most"] * scale:.1f}" '
                       f'stroke="#222" stroke-width="1"/>')
                start += r["ratio_most"] * scale
                said = f"{times(r['ratio'])}  {number(r['krait_median'])} / {number(r['llama_median'])}"
            yield f'<text x="{start + 5:.1f}" y="{end}" font-size="10">{html.escape(said)}</text>'
            y += BAR
        y += GAP
    one = x + LABEL + scale
    yield f'<path d="M{one:.1f} {top - 2}V{y - GAP + 2}" stroke="#b00" stroke-dasharray="3 3"/>'


def svg(results):
    rows = results["rows"]
    types, tests = (list(dict.fromkeys(r[k] for r in rows)) for k in ("type", "test"))
    most = max([1.0] + [r["ratio_most"] for r in rows if r["ratio"] is not None])
    models = len(dict.fromkeys(r["model"] for r in rows))
    tall = models * (BAR * len(types) + GAP) + 40
    wide = LABEL + WIDTH + 150
    columns = min(2, len(tests))
    width, height = columns * wide + 20, TOP + (len(tests) + columns - 1) // columns * tall + 10
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="sans-serif" font-size="12">', f'<rect width="{width}" height="{height}" fill="white"/>',
           '<text x="10" y="20" font-size="15">Krait against llama.cpp: tokens a second, ratio (Krait / llama.cpp)</text>']
    at = width - 90 * len(types)
    for i, kind in enumerate(types):
        out.append(f'<rect x="{at + 90 * i}" y="11" width="11" height="11" fill="{COLOURS[i % len(COLOURS)]}"/>'
                   f'<text x="{at + 90 * i + 16}" y="21">{html.escape(kind)}</text>')
    for i, test in enumerate(tests):
        out += panel([r for r in rows if r["test"] == test], types, 10 + i % columns * wide, TOP + 10 + i // columns * tall, most)
    return "\n".join(out) + "\n</svg>\n"
