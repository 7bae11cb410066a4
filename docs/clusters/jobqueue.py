"""Workers as Slurm jobs of their own.

python docs/clusters/jobqueue.py cohort.csv /shared/results

Whatever follows is given to `nuclens segment` too. Needs dask-jobqueue beside nuclens[distributed]. It runs where it is
started, a login node or a small job, whose address has to be reached from the nodes.
"""

import subprocess
import sys

from dask_jobqueue import SLURMCluster

JOBS = 4
# Workers would return freed memory to the system at once and watch themselves many times a second.
SETTINGS = [
    "export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON=\"{'MALLOC_TRIM_THRESHOLD_': None}\"",
    "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
    "export DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL=500ms",
    "export DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL=10s",
    "export DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL=2s",
    "export DASK_DISTRIBUTED__ADMIN__TICK__LIMIT=30s",
]

if __name__ == "__main__":
    slides, out, *more = sys.argv[1:]
    jobs = {"cores": 8, "processes": 1, "memory": "16GB", "walltime": "02:00:00", "job_script_prologue": SETTINGS}
    with SLURMCluster(job_name="nuclens", **jobs) as cluster:
        # So many from first to last: one that is killed, or whose time is up, is queued again.
        cluster.adapt(minimum_jobs=JOBS, maximum_jobs=JOBS)
        run = ["nuclens", "segment", slides, "--out", out, "--scheduler", cluster.scheduler_address, "--threads", "2"]
        sys.exit(subprocess.call([*run, *more]))
