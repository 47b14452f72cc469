"""Change points by Apache Otava, for benches/history.rs: a JSON array of series on standard input, `[places of each,
seconds]` on standard output. Otava's own defaults: windows of 50, p below 0.001, no smallest change but 0."""

import json
import sys
import time

from otava.analysis import compute_change_points

series = json.load(sys.stdin)
begun = time.monotonic()
found = []
for values in series:
    points, _ = compute_change_points(values, window_len=50, max_pvalue=0.001, min_magnitude=0.0)
    found.append([int(point.index) for point in points])
json.dump([found, time.monotonic() - begun], sys.stdout)
