"""Joins the rows of bench_cuda and of torch_peers.py into one JSON file and prints a short table.

usage: summary.py OUT.json DEVICE COMMIT CHECKS.txt ROWS.jsonl...
CHECKS.txt has a line "name<TAB>ok|FAILED|skipped<TAB>seconds" for each check that gpu-check.sh made.
"""
import json
import sys

out, device, commit, checks, *files = sys.argv[1:]
rows, missing = {}, set()
for path in files:
    with open(path, encoding="utf8") as lines:
        for line in lines:
            if not line.startswith("{"):
                continue
            row = json.loads(line)
            if row.get("missing"):
                missing.add(row["case"])
                continue
            entry = rows.setdefault((row["case"], row["size"]), {"case": row["case"], "size": row["size"], "peers": {}})
            if path.endswith("sm90a.jsonl"):
                entry["sm90aMs"] = row["ms"]  # with TOPKNOT_SM90A=1
            elif row["name"] == "topknot":
                # bench_cuda runs before and after PyTorch: the better of the two, as PyTorch's best call counts too.
                if row["ms"] < entry.get("ms", float("inf")):
                    entry.update(ms=row["ms"], rate=row["rate"], unit=row["unit"])
            else:
                entry["peers"][row["name"]] = row["ms"]

results = []
with open(checks, encoding="utf8") as lines:
    for line in lines:
        name, result, seconds = line.rstrip("\n").split("\t")
        results.append({"name": name, "result": result, "seconds": float(seconds)})
with open(out, "w", encoding="utf8") as file:
    report = {"device": device, "commit": commit, "checks": results, "missing": sorted(missing)}
    json.dump({**report, "rows": list(rows.values())}, file, indent=1)
    file.write("\n")

print(f"{device}, commit {commit}")
for check in results:
    print(f"  {check['result']:8} {check['name']} ({check['seconds']:.0f} s)")
print(f"{'case':20} {'size':38} {'ms':>9} {'rate':>16}  best of PyTorch")
for row in rows.values():
    ours = row.get("ms")
    best = min(row["peers"].items(), key=lambda peer: peer[1], default=None)
    rate = f"{row['rate']:.0f} {row['unit']}" if row.get("rate") else ""
    peer = f"{best[1]:.4g} ms {best[0]}" + (f" ({best[1] / ours:.2f}x ours)" if ours else "") if best else ""
    peer += f"; {row['sm90aMs']:.4g} ms with TOPKNOT_SM90A=1" if "sm90aMs" in row else ""
    print(f"{row['case']:20} {row['size']:38} {f'{ours:.4g}' if ours else '-':>9} {rate:>16}  {peer}")
for case in sorted(missing):
    print(f"{case}: not there on a GPU yet")
sys.exit(any(check["result"] == "FAILED" for check in results))
