//! # What is promised, and the test that shows it
//!
//! On every adapter whose [self-test](crate::Engine::self_test) says [`Full`](crate::Accuracy::Full), unless a
//! line says otherwise; `softxent check` measures some of the first two sections on the adapter that you have:
//! softmax, loss and gradient of index labels, exp, log1p, and the same bits from run to run, kernel to kernel and
//! batch to batch. A test is named by its module in `tests/it` and its function: `cargo test --release --test it
//! -- NAME` runs it.
//!
//! ## Accuracy
//!
//! Of the exact value for the f32 inputs, in units of the last place of an f32; 16-bit outputs are these,
//! rounded once.
//!
//! | promise | test |
//! |---|---|
//! | losses of index labels within 4 ULP where they are at least 2⁻¹²⁶, confident rows included; their gradients without smoothing or z-loss within 10 ULP | `agreement::index_labels_agree_with_the_oracle` |
//! | losses of dense labels that are not negative within 4 ULP; gradients within 10 ULP of `p·Σa + a`, a being the labels, smoothed and weighted | `agreement::dense_labels_agree_with_the_oracle` |
//! | softmax within 6 ULP, however wide the row | `reproducibility::softmax_of_wide_rows_is_within_6_ulp` |
//! | softmax of a row sums to 1 within 3e-7, its gradient with index labels to 0 within 4e-7 | `reproducibility::softmax_sums_to_1_and_gradient_to_0` |
//! | lse within 4 ULP of `abs(max) + log(1 + s)`, log-softmax within 4 ULP | `agreement::rows_without_labels_agree_with_the_oracle` |
//! | the same with class weights, smoothing, z-loss, scale, softcap, in any combination of two | `agreement::options_agree_with_the_oracle` |
//! | the reduced loss is the exact sum of the losses, over the denominator, rounded once; with a z-loss and class weights, twice | `agreement::many_rows_agree_with_the_oracle` |
//! | exp within 1 ULP, log1p within 2 ULP | `device::values_of_functions` |
//! | the oracle, in f64, agrees with multi-precision arithmetic | `reference::agrees_with_multi_precision` |
//! | the kernels agree with PyTorch where PyTorch is right | `reference_set::kernels_agree_with_the_reference_set` |
//! | the kernels agree with ONNX's own test cases | `reference_set::kernels_agree_with_onnx` |
//! | a driver that rearranges sums is found and said to be [`Reduced`](crate::Accuracy::Reduced), and one that computes wrongly is refused | `device::the_self_test_finds_a_driver_that_miscomputes` |
//! | a wrong line in any kernel is caught by a test | `planted::every_bug_in_row_per_invocation_fails_its_check`, `planted::every_bug_in_row_per_subgroup_fails_its_check`, `planted::every_bug_in_row_per_workgroup_fails_its_check`, `planted::every_bug_in_split_row_fails_its_check` |
//!
//! ## Reproducibility
//!
//! On one adapter with one driver and one version of this crate.
//!
//! | promise | test |
//! |---|---|
//! | every run gives the same bits | `reproducibility::ten_runs_are_one` |
//! | a row's bits do not depend on the rows beside it | `reproducibility::no_row_differs_in_any_batch` |
//! | nor on the kernel, the sizes of workgroups, or whether a row stays on chip | `reproducibility::no_choice_of_the_planner_changes_a_bit` |
//! | nor on how a batch is cut into chunks | `reproducibility::limits_and_chunks_do_not_matter`, `checks::a_batch_in_chunks_is_the_batch` |
//! | nor on whether a row is cut into windows | `stream::windows_of_rows_change_no_bit` |
//! | nor on how interleaved rows are cut | `stream::parts_of_interleaved_rows_change_no_bit` |
//! | nor on where arrays begin in their buffers | `reproducibility::offsets_in_buffers_do_not_matter` |
//! | nor on what else is asked for | `reproducibility::asking_for_less_changes_nothing` |
//! | the reduced loss does not depend on the order of the rows | `reproducibility::the_order_of_rows_does_not_matter` |
//! | files that pass through little memory give the files that large memory gives | `pieces::files_in_pieces_give_the_same_files` |
//! | checks in shaders change no bit | `agreement::checks_in_shaders_change_no_bit` |
//! | threads that share an engine get what each would get alone | `resident::threads_share_an_engine` |
//!
//! ## Edges
//!
//! | promise | test |
//! |---|---|
//! | −∞ masks a class; NaN and +∞ spoil their own row, which is counted; an ignored row has loss 0 and gradient 0, whatever it holds | `edges::every_line_holds` |
//! | a label that is no class is an error with its row before anything runs | `edges::a_bad_label_is_refused_by_the_host` |
//! | on the device it makes its row NaN and is counted, and is never read past a row | `edges::a_bad_label_on_the_device_spoils_its_row` |
//! | no rows are no mistake | `problem::no_rows_are_no_mistake` |
//!
//! ## Size
//!
//! | promise | test |
//! |---|---|
//! | a row may be wider than a binding: 2²⁶ classes | `stream::a_row_may_be_wider_than_a_binding` |
//! | rows past 2³² (minutes, and so only with `--ignored`) | `stream::more_rows_than_32_bits_can_count` |
//! | a host call keeps to the memory that it is given | `stream::memory_is_kept_to` |
//! | the command keeps to it whatever the size of a file | `pieces::memory_does_not_grow_with_the_file` |
//!
//! ## Faults
//!
//! | promise | test |
//! |---|---|
//! | whichever operation of the device fails, and in whatever way, is an error of its kind: no panic, no hang, no wrong result, and the engine says whether it is dead | `faults::in_one_chunk`, `faults::in_many_chunks`, `faults::in_windows_of_rows`, `faults::in_preparing`, `faults::in_binding`, `faults::in_the_self_test`, `faults::in_math_values` |
//! | each error is raised by a test | `errors::of_problems`, `errors::of_batches`, `errors::of_plans`, `errors::of_buffers`, `errors::of_devices`, `errors::of_systems` |
//! | every wait has an end, and an engine that waited in vain may go on | `device::waits_have_an_end` |
//! | a device that drops rows is noticed | `device::rows_that_a_driver_drops_are_an_error` |
//! | a host call whose submission was not carried out is an error, not an old result | `faults::in_many_chunks`, `faults::in_windows_of_rows` |
//! | a lost device is an error, borrowed or not | `device::a_lost_device_is_an_error`, `device::a_lost_borrowed_device_is_an_error` |
//! | in its place comes another one with the same settings and the same bits, and a call may ask for that | `device::a_lost_device_is_renewed` |
//! | a device with too low limits is refused by name, and one with those of WebGPU serves | `device::a_device_with_the_least_limits` |
//! | threads that share an engine get the results of one call after the other | `load::threads_on_one_engine_get_the_results_of_one` |
//! | a source or a sink that fails ends the run with its own words | `stream::sources_and_sinks_may_fail` |
//! | no driver is no fault: the command computes on the processor and says so | `cli::without_an_adapter` |
//!
//! ## Files
//!
//! | promise | test |
//! |---|---|
//! | an error, a signal or the end of the disk leaves output files as they were, and nothing else: they are replaced when all are complete, one right after the other | `pieces::signals_leave_no_litter`, `pieces::signals_that_are_ignored_and_limits`, `cli::a_bad_label_leaves_the_old_output` |
//! | odd and hostile files: each is read as what it says or refused in words | `files::every_file_has_its_verdict` |
//! | an output may replace an input | `cli::an_output_may_replace_an_input` |
//! | a file that shrinks while it is read is an error | `pieces::a_file_that_shrinks_is_an_error` |
//! | a closed pipe is a quiet end, a full disk an error | `cli::a_closed_pipe_is_no_fault`, `cli::a_full_disk_behind_standard_output_is_a_failure` |
//!
//! ## What is not promised
//!
//! * The same bits on another adapter, driver or version: exp and log1p are the same arithmetic everywhere, and
//!   drivers may still fuse a product with a sum.
//! * Accuracy on a driver that rearranges sums: it is said, and nothing more.
//! * Anything of a process that is killed without a word (SIGKILL): its output files are whole, and a
//!   `.softxent-*.tmp` may stay beside them.
//! * That a driver is found out which loses bytes that the host wrote: what it computes from what was there
//!   before has the right number, and as many rows as it should. On the caller's own device the submissions
//!   are the caller's to watch; the status counts the rows.
