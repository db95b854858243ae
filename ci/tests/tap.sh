# shellcheck shell=sh
# For tests written in sh: . ci/tests/tap.sh, then point NAME COMMAND..., and in the end finish.
points=0 bad=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
echo "TAP version 13"

# point NAME COMMAND...: passes when the command does
point() {
    points=$((points + 1))
    point_name=$1
    shift
    if "$@" >"$work/point.log" 2>&1; then echo "ok $points - $point_name"; else
        echo "not ok $points - $point_name"
        head -n 20 "$work/point.log" | sed 's/^/# /'
        bad=1
    fi
}
skip() {
    points=$((points + 1))
    echo "ok $points - $1 # SKIP $2"
}
finish() {
    echo "1..$points"
    exit $bad
}
