"""Workers as Slurm jobs that come and go with the work.

python docs/clusters/jobqueue.py cohort.csv /shared/results

Needs dask-jobqueue beside nuclens[distributed]. It runs where it is started: a login node, or a small job.
"""

import sys

from dask_jobqueue import SLURMCluster

from nuclens.cli import app

if __name__ == "__main__":
    slides, out = sys.argv[1:]
    with SLURMCluster(cores=8, processes=1, memory="16GB", walltime="02:00:00") as cluster:
        cluster.adapt(minimum_jobs=1, maximum_jobs=20)
        sys.exit(app(["segment", slides, "--out", out, "--scheduler", cluster.scheduler_address, "--threads", "2"]))
