"""Gates: is the code of now worse than what a baseline, another checkout or the spec's own claims say? Verdicts, never numbers.

rows.py        the nouns: Row, its Reason and Outcome; the exit code that many of them give together
run.py         one gate from beginning to end: what each class looks at, its rows, the Result
baseline.py    the committed file of traced integers: read, written, accepted; naming.py finds it, listing.py shows it
points.py      Cases -> Points: kept closed forms, else a trace in a child
judge.py       the exact class: Baseline and Points of now -> Rows (pure)
promises.py    the claims that a spec makes, and their Points -> Rows (pure)
ratios.py      the ratio class: what a baseline holds; ratio_run.py measures, ratio_rows.py says, ratio_class.py is the whole
forecast.py    about how long a gate takes
timing.py      the time class: latency.py and timed.py are its pure parts
outputs.py     the Result, as console text and as the JSON report; junit.py, summary.py, github.py: as CI servers read it
"""
