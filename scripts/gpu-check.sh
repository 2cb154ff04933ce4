#!/usr/bin/env bash
# Everything that only a GPU can show, in one go and without a network: the kernels' tests on the GPU, the PTX wrappers
# against their emulation, the memory and race checkers, and the benchmark table beside PyTorch.
#
#   scripts/gpu-check.sh [--out DIR] [--build DIR] [--minutes N]
#     --out      where report.json and log.txt go (default: $OUT, else build-gpu)
#     --build    a tree that was built before (default: builds into build-gpu, for the GPU of this machine)
#     --minutes  what it may take (default 8): checks that are left when it runs out are named as skipped
#
# A build needs nvcc, CMake, and the headers of Highway and Eigen. On a machine without those two, carry them:
#   mkdir -p .gpu/include && cp -rL /usr/include/hwy /usr/include/eigen3 .gpu/include/     (.gpu is ignored by git)
# Ends with 77 where there is no GPU, with 1 when a check failed.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-build-gpu} build='' minutes=8
while (($#)); do
  case $1 in
    --out) out=$2 ;;
    --build) build=$2 ;;
    --minutes) minutes=$2 ;;
    *) echo "gpu-check: unknown option $1; the head of $0 lists them" >&2; exit 2 ;;
  esac
  (($# > 1)) || { echo "gpu-check: $1 wants a value" >&2; exit 2; }
  shift 2
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
log=$out/log.txt checks=$out/checks.txt
: >"$log"
: >"$checks"
deadline=$((SECONDS + minutes * 60))

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
if [[ -z $gpu ]]; then
  echo "gpu-check: nvidia-smi shows no GPU: nothing was checked"
  exit 77
fi
commit=$(git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)
[[ -z $(git status --porcelain 2>/dev/null) ]] || commit+=' with changes'

# check NAME SECONDS COMMAND...: runs it, its output in the log, for at most so many seconds of those that are left.
check() {
  local name=$1 most=$2 start=$SECONDS result=ok left=$((deadline - SECONDS))
  shift 2
  if ((left < 10)); then
    result=skipped
  else
    printf '\n== %s: %s\n' "$name" "$*" >>"$log"
    timeout "$((left < most ? left : most))" "$@" >>"$log" 2>&1
    case $? in 0) ;; 77) result=skipped ;; *) result=FAILED ;; esac
  fi
  printf '%s\t%s\t%s\n' "$name" "$result" "$((SECONDS - start))" >>"$checks"
  echo "$result  $name"
  [[ $result == ok ]]
}

configure() {
  local headers=() architecture=native
  # "native" would leave out what 9.0a alone has.
  [[ $(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1) == 9.0 ]] && architecture=90a-real
  [[ -d .gpu/include ]] && headers=("-DHWY_INCLUDE_DIR=$PWD/.gpu/include" "-DEIGEN_INCLUDE_DIR=$PWD/.gpu/include/eigen3")
  cmake -S . -B build-gpu -DCMAKE_BUILD_TYPE=Release -DTOPKNOT_CUDA=ON -DTOPKNOT_TESTS=ON \
    -DCMAKE_CUDA_ARCHITECTURES=$architecture "${headers[@]}"
}
export -f configure
if [[ -z $build ]]; then
  build=build-gpu
  check configure 60 bash -c configure && check build 300 cmake --build build-gpu --parallel "$(nproc)" || {
    tail -30 "$log"
    exit 1
  }
fi
programs=$(cd "$build" && find "$PWD" -name ptx_check -path '*test*' -printf '%h\n' | head -1)
export TOPKNOT_CUDA_PLUGIN
TOPKNOT_CUDA_PLUGIN=$(cd "$build" && find "$PWD" -name libtopknot_cuda.so | head -1)
if [[ -z $programs || -z $TOPKNOT_CUDA_PLUGIN ]]; then
  echo "gpu-check: $build has no ptx_check or no libtopknot_cuda.so: build it with TOPKNOT_CUDA=ON and TOPKNOT_TESTS=ON"
  exit 1
fi
export TOPKNOT_CUDA_BUILT=1

check 'PTX wrappers against their emulation' 30 "$programs/ptx_check"
tests=()
for program in "$programs"/cuda_*_test; do
  name=$(basename "$program")
  [[ $name == cuda_loader_test || $name == cuda_ptx*_test ]] || tests+=("$name")
done
for name in "${tests[@]}"; do check "$name on the GPU" 60 "$programs/$name" onTheGpusOfThisMachine; done

# The kernels of 9.0a are off unless they are asked for (docs/gpu.md): the same tests and benchmarks with them.
sm90a=''
[[ $(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1) == 9.0 ]] && sm90a=1
for name in "${tests[@]}"; do
  [[ $sm90a && $name =~ matmul|topk|search|attention|blocks ]] || continue
  check "$name on the GPU, TOPKNOT_SM90A=1" 60 env TOPKNOT_SM90A=1 "$programs/$name" onTheGpusOfThisMachine
done

check 'bench_cuda' 150 bash -c "'$programs/bench_cuda' >'$out/ours.jsonl'"
if [[ $sm90a ]]; then
  check 'bench_cuda, TOPKNOT_SM90A=1' 150 env TOPKNOT_SM90A=1 bash -c "'$programs/bench_cuda' >'$out/sm90a.jsonl'"
fi
if python3 -c 'import torch' 2>/dev/null; then
  check 'PyTorch' 150 bash -c "python3 scripts/gpu/torch_peers.py >'$out/torch.jsonl'"
  check 'bench_cuda again' 100 bash -c "'$programs/bench_cuda' >'$out/again.jsonl'"
fi

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    for name in "${tests[@]}"; do
      check "$tool of $name" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$programs/$name" onTheGpusOfThisMachine
    done
  done
fi

touch "$out"/{ours,torch,again,sm90a}.jsonl
python3 scripts/gpu/summary.py "$out/report.json" "$gpu" "$commit" "$checks" "$out"/{ours,torch,again,sm90a}.jsonl | tee -a "$log"
