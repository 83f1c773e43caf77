"""Pairs of runs, their ratios, and the tables that bench/compare prints."""

import dataclasses
import os
import statistics

import sides

STEADY = 1.10  # the largest quotient of two measurements of the same loop in a steady pair


@dataclasses.dataclass
class Pair:
    carat: sides.Run
    peer: sides.Run
    loops: list  # of (GB/s, GMAC/s): before, between and after

    def steadiness(self):
        return quotient(self.loops)

    def steady(self):
        return self.steadiness() <= STEADY


@dataclasses.dataclass
class Comparison:
    name: str
    pairs: list
    repeated: int  # pairs that were run again

    def unsteady(self):
        return sum(not p.steady() for p in self.pairs)


def quotient(loops):
    """The largest over the smallest, of whichever figure moved more."""
    return max(max(column) / min(column) for column in zip(*loops))


def run_pair(carat, peer, work, carat_first, give_up):
    """One pair. With give_up, None if the machine moved before the second side began."""
    loops = [carat.machine(work.threads)]
    runs = []
    for side in (carat, peer) if carat_first else (peer, carat):
        if runs and give_up and quotient(loops) > STEADY:
            return None
        runs.append(side.run(work))
        loops.append(carat.machine(work.threads))
    return Pair(*(runs if carat_first else reversed(runs)), loops)


def compare(carat, peer, work, pairs, retries, say):
    done, repeated = [], 0
    for i in range(pairs):
        best = None
        for attempt in range(retries + 1):
            # The last attempt is finished whatever happens, so that every pair has its figures.
            give_up = attempt < retries or best is not None
            pair = run_pair(carat, peer, work, i % 2 == 0, give_up)
            if pair and (best is None or pair.steadiness() < best.steadiness()):
                best = pair
            if best and best.steady():
                break
            if attempt < retries:
                repeated += 1
                say(f"{peer.name}, pair {i + 1}: the machine moved, once more")
        done.append(best)
        say(f"{peer.name}, pair {i + 1} of {pairs}: " + ", ".join(
            f"{row}: {best.carat.figures[row]:.2f} and {best.peer.figures[row]:.2f}"
            for row in common_rows(work, [best])))
    if not common_rows(work, done):
        raise sides.SideError(f"{peer.name} measures nothing that carat was asked for")
    return Comparison(peer.name, done, repeated)


def common_rows(work, pairs):
    return [row for row in work.rows()
            if all(row in p.carat.figures and row in p.peer.figures for p in pairs)]


@dataclasses.dataclass
class Summary:
    """Of one row against one peer; ratios above 1 mean that carat is faster."""
    row: str
    carat: list  # figures, pair by pair
    peer: list
    lower_is_better: bool

    def ratios(self):
        if self.lower_is_better:
            return [p / c for c, p in zip(self.carat, self.peer)]
        return [c / p for c, p in zip(self.carat, self.peer)]


def summaries(work, comparison):
    return [Summary(row, [p.carat.figures[row] for p in comparison.pairs],
                    [p.peer.figures[row] for p in comparison.pairs], work.lower_is_better())
            for row in common_rows(work, comparison.pairs)]


def digits(x):
    """Three figures, and no more than two decimals."""
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def spread(values, unit=""):
    """median (lowest..highest)"""
    return (f"{digits(statistics.median(values))}{unit} "
            f"({digits(min(values))}..{digits(max(values))})")


def shares(work, comparison, row):
    """The share of the machine's limit that carat reached, pair by pair; the limit is the best of
    the pair's loops. Empty where carat told no rate."""
    name, loop = (("prefill_giga_multiply_adds_per_second", 1) if row.startswith("prefill")
                  else ("decode_gigabytes_per_second", 0))
    rates = [p.carat.details.get(name) for p in comparison.pairs]
    if work.first_token or None in rates:
        return []
    return [rate / max(l[loop] for l in p.loops) for rate, p in zip(rates, comparison.pairs)]


HEADINGS = ["work", "peer", "carat", "peer's", "ratio", "of the limit", "carat's memory",
            "peer's memory"]


def table_rows(work, comparisons):
    """Cells under HEADINGS."""
    rows = []
    for c in comparisons:
        memory = [f"{max(getattr(p, side).peak_resident_bytes for p in c.pairs) / 1e9:.2f} GB"
                  for side in ("carat", "peer")]
        for s in summaries(work, c):
            share = shares(work, c, s.row)
            unit = " s" if s.lower_is_better else ""
            rows.append([s.row, c.name + (" *" if c.unsteady() else ""), spread(s.carat, unit),
                         spread(s.peer, unit), spread(s.ratios()),
                         f"{100 * statistics.median(share):.0f} %" if share else "-", *memory])
    return rows


def notes(work, comparisons):
    """What a reader must know beside the figures."""
    lines = []
    for name, run in [("carat", comparisons[0].pairs[0].carat)] + [
            (c.name, c.pairs[0].peer) for c in comparisons]:
        about = run.about
        told = [f"version {about['version']}"] if about else []
        told += [f"{k} {about[k]}" for k in ("isa", "threads") if about.get(k)]
        told += [f"K/V {about['kv']}"] if about.get("kv") else []
        lines.append(f"{name}: {', '.join(told) or 'told nothing about itself'}")
    loops = [l for c in comparisons for p in c.pairs for l in p.loops]
    lines.append("the machine's loops: " + spread([l[0] for l in loops]) + " GB/s read, "
                 + spread([l[1] for l in loops]) + " GMAC/s")
    count = sum(len(c.pairs) for c in comparisons)
    repeated = sum(c.repeated for c in comparisons)
    lines.append(f"{count} pairs, {repeated} run again because a loop moved by more than 10 %")
    for c in comparisons:
        if c.unsteady():
            lines.append(f"* {c.unsteady()} of {len(c.pairs)} pairs with {c.name} were never "
                         "steady; the steadiest attempt was taken")
    if work.all_logits:
        lines.append("carat computed the logits of every token read, the peers only those of the "
                     "last")
    lines.append("tokens a second" if not work.lower_is_better() else "seconds, lower is better")
    lines[-1] += "; median (lowest..highest); memory is the maximum resident set"
    return lines


def title(work):
    return f"{os.path.basename(work.model)}, {work.threads} threads"


def text_table(work, comparisons):
    rows = [HEADINGS] + table_rows(work, comparisons)
    widths = [max(len(r[i]) for r in rows) for i in range(len(HEADINGS))]
    lines = [title(work), ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(r, widths)).rstrip()
              for r in rows]
    return "\n".join(lines + [""] + notes(work, comparisons))


def markdown(work, comparisons):
    rows = table_rows(work, comparisons)
    lines = [f"### {title(work)}", "", "| " + " | ".join(HEADINGS) + " |",
             "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(cell.replace("*", "\\*") for cell in r) + " |" for r in rows]
    return "\n".join(lines + [""] + [f"- {n}".replace("*", "\\*")
                                     for n in notes(work, comparisons)] + [""])


def as_json(work, comparisons):
    out = {"model": work.model, "threads": work.threads, "lower_is_better": work.lower_is_better(),
           "peers": []}
    for c in comparisons:
        rows = []
        for s in summaries(work, c):
            ratios = s.ratios()
            rows.append({"work": s.row, "carat": s.carat, "peer": s.peer,
                         "carat_median": statistics.median(s.carat),
                         "peer_median": statistics.median(s.peer), "ratios": ratios,
                         "ratio_median": statistics.median(ratios), "ratio_lowest": min(ratios),
                         "ratio_highest": max(ratios),
                         "shares_of_limit": shares(work, c, s.row)})
        out["peers"].append({
            "name": c.name, "rows": rows, "repeated": c.repeated, "unsteady": c.unsteady(),
            "pairs": [{"steadiness": p.steadiness(),
                       "loops": [{"read_gigabytes_per_second": l[0],
                                  "giga_multiply_adds_per_second": l[1]} for l in p.loops],
                       "carat": dataclasses.asdict(p.carat), "peer": dataclasses.asdict(p.peer)}
                      for p in c.pairs]})
    return out
