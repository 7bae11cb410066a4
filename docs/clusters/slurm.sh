#!/bin/bash
# A scheduler, workers on every node of the job, and the run itself:
#   sbatch docs/clusters/slurm.sh cohort.csv /shared/results
# Submitted again after a time limit, or after anything else, it goes on with the tiles that lack.
#SBATCH --job-name=nuclens
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=04:00:00
set -euo pipefail
slides=$1 out=$2
# A folder that all nodes see; who can read the file can run programs as you, so nobody else may.
umask 077
mkdir -p "$out"
address=$out/scheduler-$SLURM_JOB_ID.json

dask scheduler --scheduler-file "$address" --port 0 --no-dashboard &
until [ -s "$address" ]; do sleep 1; done
# One worker with all cores of its node: they share one model, and read, run and decode different tiles.
srun --overlap dask worker --scheduler-file "$address" --nthreads "$SLURM_CPUS_PER_TASK" --no-dashboard \
    --local-directory "${TMPDIR:-/tmp}" &

status=0
nuclens segment "$slides" --out "$out" --scheduler "$address" --threads 2 || status=$?
rm -f "$address"
kill %1
wait
exit $status
