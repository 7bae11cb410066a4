"""Workers as Slurm jobs of their own.

python docs/clusters/jobqueue.py cohort.csv /shared/results

Whatever follows is given to `nuclens segment` too. Needs dask-jobqueue beside nuclens[distributed]. It runs where it is
started, a login node or a small job, whose address has to be reached from the nodes.
"""

import subprocess
import sys

from dask_jobqueue import SLURMCluster

JOBS = 4
# Workers would return freed memory to the system at once, and spend an eighth of their time on getting it back.
KEPT = "export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON=\"{'MALLOC_TRIM_THRESHOLD_': None}\""

if __name__ == "__main__":
    slides, out, *more = sys.argv[1:]
    settings = {"cores": 8, "processes": 1, "memory": "16GB", "walltime": "02:00:00", "job_script_prologue": [KEPT]}
    with SLURMCluster(job_name="nuclens", **settings) as cluster:
        # So many from first to last: one that is killed, or whose time is up, is queued again.
        cluster.adapt(minimum_jobs=JOBS, maximum_jobs=JOBS)
        run = ["nuclens", "segment", slides, "--out", out, "--scheduler", cluster.scheduler_address, "--threads", "2"]
        sys.exit(subprocess.call([*run, *more]))
