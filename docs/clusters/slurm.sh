#!/bin/bash
# A scheduler, workers on every node of the job, and the run itself:
#   sbatch docs/clusters/slurm.sh cohort.csv /shared/results
# Whatever follows is given to `nuclens segment` too. Submitted again after a time limit, or after anything else, it goes on
# with the tiles that lack.
#SBATCH --job-name=nuclens
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
# The job outlives a node that fails, unless it is the first one.
#SBATCH --no-kill
set -euo pipefail
slides=$1 out=$2
shift 2
# A folder that all nodes see; who can read the file can run programs as you, so nobody else may.
umask 077
mkdir -p "$out"
address=$out/scheduler-$SLURM_JOB_ID.json
trap 'rm -f "$address"' EXIT
export DASK_DISTRIBUTED__LOGGING__DISTRIBUTED=warning
# Workers would return freed memory to the system at once and watch themselves many times a second.
export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON="{'MALLOC_TRIM_THRESHOLD_': None}"
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
export DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL=500ms
export DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL=10s
export DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL=2s
export DASK_DISTRIBUTED__ADMIN__TICK__LIMIT=30s

dask scheduler --scheduler-file "$address" --port 0 --no-dashboard &
scheduler=$!
until [ -s "$address" ]; do
    kill -0 $scheduler
    sleep 1
done
# One worker with all cores of its node: they share one model, and read, run and decode different tiles. A quarter of the
# memory is left to the scheduler and the run.
srun --overlap --no-kill --cpus-per-task="$SLURM_CPUS_PER_TASK" dask worker --scheduler-file "$address" \
    --nthreads "$SLURM_CPUS_PER_TASK" --memory-limit "$((SLURM_MEM_PER_NODE * 3 / 4))MiB" --no-dashboard \
    --death-timeout 120 --local-directory "${TMPDIR:-/tmp}" &

status=0
nuclens segment "$slides" --out "$out" --scheduler "$address" --threads 2 "$@" || status=$?
kill $scheduler
wait
exit $status
