"""Add numbers up, each worker its part; a parameter server serves for ever."""

import os
import time

from nimbus_hub.distributed import checkpoint_path, log_dir, output_path, rank, role, shard

if role() in ("ps", "evaluator"):
    print(f"{role()} serves", flush=True)
    while True:
        time.sleep(1)
if "FAILS" in os.environ and rank() == 1:
    raise ValueError("no good")
total = sum(number * number for number in shard(range(1000)))
print(f"first step {time.time()}", flush=True)
output_path(f"part-{rank()}.txt").write_text(f"{total}\n")
assert checkpoint_path().is_dir()
assert log_dir().is_dir()
print(f"total={total}", flush=True)
