#!/usr/bin/env bash
# The smaller laws of sparse products under valgrind, for the kernels that it can run: reads and writes outside of what was asked for, and
# decisions by numbers that nobody wrote.
set -euo pipefail
cd "$(dirname "$0")/.."
# All packages are built together, as by the test command: one alone would be built again, with other features.
built=$(cargo test --test laws --no-run --message-format json)
laws_of() { sed -n "s#.*\"manifest_path\":\"$1Cargo.toml\".*\"executable\":\"\([^\"]*/laws-[^\"]*\)\".*#\1#p" <<< "$built" | tail -1; }
storages=(
    compressing_a_view_stores_what_compressing_its_copy_stores
    what_is_stored_is_what_the_mask_keeps_zeros_and_all
    bad_input::a_kept_weight_that_is_no_number_reaches_the_outputs_of_its_row_and_a_dropped_one_none
    bad_input::rows_and_columns_that_keep_nothing_give_zeros_and_what_is_added_to_them
    groups::smaller_groups_are_closer_to_the_weight_and_take_as_many_bytes_as_they_have_scales_more
    patterned::changed_parts_of_patterns_are_refused_or_sound
    patterned::columns_of_blocks_beyond_16_bits_are_kept_in_32
    groups::infinities_at_dropped_inputs_do_not_reach_the_outputs_by_groups
    groups::random_groups_are_exact
    patterned::random_patterns_are_exact
    quantized::whole_numbers_are_multiplied_exactly_with_activations_of_eight_bits
    quantized_sparse::whole_numbers_are_multiplied_exactly_in_both_layouts
    slices::changed_slices_are_refused_or_sound
    slices::random_shapes_and_masks_are_exact
    storages::random_shapes_masks_and_tiles_are_exact
    storages::changed_lists_are_refused_or_sound
    storages::changed_runs_are_refused_or_sound
    transposed::infinities_of_outputs_reach_only_the_inputs_that_are_kept
    transposed::strides_of_the_gradients_do_not_matter_and_nothing_else_is_written
    transposed::transposed_products_are_exact_on_small_whole_numbers
    transposed::transposed_products_of_other_numbers_are_those_of_what_is_stored
)
dense=(
    dense::results_may_run_backwards
    dense::without_inputs_all_outputs_are_zero_and_what_is_added_to_stays
    narrow::a_layer_reads_rows_of_whatever_it_is_stored_as
)
check() {
    local laws=$1
    shift
    local known law isa
    known=$("$laws" --list)
    for law in "$@"; do
        grep -qxF "$law: test" <<< "$known" || { echo "no law is named $law" >&2; exit 1; }
    done
    # Each set of instructions on a core of its own.
    local pids=() pid
    for isa in avx2 portable; do
        if [ "$isa" = portable ] || grep -qw "$isa" /proc/cpuinfo; then
            LACUNA_ISA=$isa RAYON_NUM_THREADS=1 PROPTEST_CASES=8 valgrind --quiet --error-exitcode=9 "$laws" --test-threads=1 --exact "$@" &
            pids+=($!)
        fi
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
}
root=$(pwd)
check "$(laws_of "$root/crates/sparse/")" "${storages[@]}"
check "$(laws_of "$root/")" "${dense[@]}"
