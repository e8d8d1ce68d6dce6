//! # From the formula to the kernel
//!
//! Why the gradient of softmax followed by cross-entropy is `p − y`, when it is not, and how both
//! are computed in f32 without losing it. Every step is followed by a test that checks it with
//! numbers. One row of `K` logits `z` throughout, until the mean over `N` rows.
//!
//! ## 1. Softmax
//!
//! Softmax maps the logits of a row to positive numbers that sum to 1:
//!
//! ```text
//! pᵢ = exp(zᵢ) / Σₖ exp(zₖ)
//! ```
//!
//! It is a function of the whole row: each `pᵢ` depends on every `zⱼ` through the denominator. Adding
//! a constant to all logits multiplies numerator and denominator by the same number, so only
//! differences of logits matter.
//!
//! ```
//! fn softmax(z: [f64; 3]) -> [f64; 3] {
//!     let sum: f64 = z.iter().map(|z| z.exp()).sum();
//!     z.map(|z| z.exp() / sum)
//! }
//! let p = softmax([1.0, 2.0, 4.0]);
//! let shifted = softmax([11.0, 12.0, 14.0]);
//! // Each p is good to a few roundings of numbers below 1: 8 ε leaves room for all of them.
//! let few = 8.0 * f64::EPSILON;
//! approx::assert_abs_diff_eq!(p.iter().sum::<f64>(), 1.0, epsilon = few);
//! approx::assert_abs_diff_eq!(p.as_slice(), shifted.as_slice(), epsilon = few);
//! ```
//!
//! ## 2. Its Jacobian
//!
//! The quotient rule, with `S = Σₖ exp(zₖ)` and `∂S/∂zⱼ = exp(zⱼ)`, has two cases, because the
//! numerator of `pᵢ` depends on `zⱼ` only when `i = j`:
//!
//! ```text
//! i = j:   ∂pᵢ/∂zᵢ = (exp(zᵢ)·S − exp(zᵢ)·exp(zᵢ)) / S² =  pᵢ·(1 − pᵢ)
//! i ≠ j:   ∂pᵢ/∂zⱼ = (    0    − exp(zᵢ)·exp(zⱼ)) / S² = −pᵢ·pⱼ
//!
//! both:    J = diag(p) − p pᵀ
//! ```
//!
//! `J` is symmetric, and its rows sum to 0, which is the constant of step 1 seen from here. Nobody
//! stores it: `J v = p ⊙ (v − ⟨p, v⟩)` needs one dot product.
//!
//! ```
//! # fn softmax(z: [f64; 3]) -> [f64; 3] {
//! #     let sum: f64 = z.iter().map(|z| z.exp()).sum();
//! #     z.map(|z| z.exp() / sum)
//! # }
//! let z = [0.5, -1.0, 2.0];
//! let p = softmax(z);
//! // Central differences are off by h²/6 times the third derivative, which is at most 1/8 (that of
//! // the logistic function), and by the rounding of two values of p, 4 ε each, over 2h.
//! let h = 1e-5;
//! let tolerance = h * h / 48.0 + 4.0 * f64::EPSILON / h;
//! for j in 0..3 {
//!     let (mut above, mut below) = (z, z);
//!     above[j] += h;
//!     below[j] -= h;
//!     let (above, below) = (softmax(above), softmax(below));
//!     for i in 0..3 {
//!         let jacobian = if i == j { p[i] * (1.0 - p[i]) } else { -p[i] * p[j] };
//!         let slope = (above[i] - below[i]) / (2.0 * h);
//!         approx::assert_abs_diff_eq!(jacobian, slope, epsilon = tolerance);
//!     }
//! }
//! ```
//!
//! ## 3. Cross-entropy
//!
//! The cross-entropy between a row of label weights `y` and `p`, written with
//! `log pₖ = zₖ − lse` and `lse = log Σₖ exp(zₖ)`, is
//!
//! ```text
//! ℓ = −Σₖ yₖ·log pₖ = Σₖ yₖ·(lse − zₖ)          class index c, so y one-hot:  ℓ = lse − z_c
//! ```
//!
//! and the loss of a batch is the mean over its rows, `𝓛 = (1/N)·Σₙ ℓₙ`. (Ignored rows leave both
//! the sum and `N`.)
//!
//! ```
//! use softxent::{Batch, Problem, Wanted, reference};
//! let problem = Problem::of(2, 3).index_labels(-100).want([Wanted::Loss]).build()?;
//! let batch = Batch::of(&[1.0, 2.0, 4.0, 0.0, -1.0, 0.5]).index(&[2, 0]);
//! let lse = |z: [f64; 3]| z.iter().map(|z| z.exp()).sum::<f64>().ln();
//! let mean = (lse([1.0, 2.0, 4.0]) - 4.0 + lse([0.0, -1.0, 0.5]) - 0.0) / 2.0;
//! // The plain formula rounds numbers up to 4 a few times.
//! let loss = reference::run(&problem, &batch)?.loss.unwrap();
//! approx::assert_abs_diff_eq!(loss, mean, epsilon = 4.0 * 4.0 * f64::EPSILON);
//! # Ok::<(), softxent::Error>(())
//! ```
//!
//! ## 4. The gradient
//!
//! The chain rule runs through every `pₖ`, because every one of them depends on `zᵢ`. The derivative
//! of the loss with respect to `pₖ` is `−yₖ/pₖ`, and the Jacobian cancels that division:
//!
//! ```text
//! ∂ℓ/∂zᵢ = Σₖ (∂ℓ/∂pₖ)·(∂pₖ/∂zᵢ)
//!        = (−yᵢ/pᵢ)·pᵢ·(1 − pᵢ) + Σ_{k≠i} (−yₖ/pₖ)·(−pₖ·pᵢ)        both cases of step 2
//!        = −yᵢ + yᵢ·pᵢ + pᵢ·Σ_{k≠i} yₖ
//!        = pᵢ·Σₖ yₖ − yᵢ
//! ```
//!
//! Where the weights of a row sum to 1, as a one-hot row does, this is `p − y`. Where they do not,
//! `p − y` is wrong, so the sum stays. The mean divides by `N`, and what follows the loss multiplies
//! by its upstream gradient `g`: `∂𝓛/∂z = (g/N)·(p·Σy − y)` for each row.
//!
//! ```
//! use softxent::reference::{Target, row};
//! let z = [0.5_f32, -1.0, 2.0];
//! let y = [0.5_f32, 0.25, 1.0]; // sums to 1.75
//! let dense = row(&z, Target::Dense(&y));
//! let p = [dense.p(0), dense.p(1), dense.p(2)];
//! let y = y.map(f64::from);
//! // A dozen roundings of numbers below 2.
//! let few = 12.0 * 2.0 * f64::EPSILON;
//! for i in 0..3 {
//!     let jacobian = |k: usize| if k == i { p[k] * (1.0 - p[k]) } else { -p[k] * p[i] };
//!     let chain: f64 = (0..3).map(|k| -y[k] / p[k] * jacobian(k)).sum();
//!     approx::assert_abs_diff_eq!(dense.grad(i), chain, epsilon = few);
//!     approx::assert_abs_diff_eq!(dense.grad(i), p[i] * 1.75 - y[i], epsilon = few);
//!
//!     let one_hot = row(&z, Target::Index(2));
//!     let y = if i == 2 { 1.0 } else { 0.0 };
//!     approx::assert_abs_diff_eq!(one_hot.grad(i), p[i] - y, epsilon = few);
//! }
//! ```
//!
//! And with the whole batch, against differences of the mean loss:
//!
//! ```
//! use softxent::{Batch, Problem, Upstream, Wanted, reference};
//! let problem = Problem::of(2, 3)
//!     .index_labels(-100)
//!     .upstream(Upstream::Number(3.0))
//!     .want([Wanted::Loss, Wanted::Grad])
//!     .build()?;
//! let at = |logits: &[f32]| reference::run(&problem, &Batch::of(logits).index(&[2, 0]));
//! let z = [1.0_f32, 2.0, 4.0, 0.0, -1.0, 0.5];
//! let grad = at(&z)?.grad.unwrap();
//! // The logits are f32, so h is a power of 2 that they can take up without rounding. The third
//! // derivative of lse is p(1 − p)(1 − 2p) < 0.1, and the losses, below 4, are good to 8 ε.
//! let h = 1.0 / 16384.0;
//! let tolerance = 3.0 * (f64::from(h).powi(2) / 60.0 + 4.0 * 8.0 * f64::EPSILON / f64::from(h));
//! for i in 0..6 {
//!     let (mut above, mut below) = (z, z);
//!     above[i] += h;
//!     below[i] -= h;
//!     let slope = (at(&above)?.loss.unwrap() - at(&below)?.loss.unwrap()) / (2.0 * f64::from(h));
//!     approx::assert_abs_diff_eq!(grad[i], 3.0 * slope, epsilon = tolerance);
//! }
//! # Ok::<(), softxent::Error>(())
//! ```
//!
//! ## 5. Why f32 loses it
//!
//! Two things go wrong with these formulas as they stand. `exp(89)` overflows f32, which the
//! constant of step 1 repairs: subtract the maximum `m`. And a confident row cancels: f32 has 24
//! bits, so once the other classes together have less than `2⁻²⁵` of the probability, which takes a
//! gap of about 17, `p` rounds to 1 and `lse` to the label's logit. The loss and the gradient at the
//! label come out as exactly 0, an error of 100 %, although f32 could hold them down to `10⁻³⁸`.
//! In f64 the same happens at a gap of about 37.
//!
//! What is lost is the sum of the *other* classes, added to a 1. So that 1 is left out:
//!
//! ```text
//! m    = maxₖ zₖ
//! s    = Σ exp(zₖ − m)        over all classes but one that attains the maximum
//! L    = log1p(s)
//! ℓ    = L + (m − z_c)        both terms ≥ 0: nothing cancels
//! ∂ℓ/∂z_c = p_c − 1 = −Σ_{k≠c} exp(zₖ − m) / (1 + s)
//! ```
//!
//! ```
//! use softxent::reference::{Target, row};
//! let z = [0.0_f32, 20.0, 1.0];
//! let e = z.map(|z| (z - 20.0).exp());
//! let naive_loss = (20.0 + (e[0] + e[1] + e[2]).ln()) - z[1];
//! let naive_grad = e[1] / (e[0] + e[1] + e[2]) - 1.0;
//! assert_eq!((naive_loss, naive_grad), (0.0, 0.0));
//!
//! let s = e[0] + e[2];
//! let (loss, grad) = (s.ln_1p() + (20.0 - z[1]), -s / (1.0 + s));
//! let truth = row(&z, Target::Index(1));
//! // Still f32, with a handful of roundings of half an ULP to one: relative, not absolute.
//! let few = 4.0 * f32::EPSILON;
//! approx::assert_relative_eq!(loss, truth.loss as f32, max_relative = few, epsilon = 0.0);
//! approx::assert_relative_eq!(grad, truth.grad(1) as f32, max_relative = few, epsilon = 0.0);
//! ```
//!
//! ## 6. The row state
//!
//! A kernel reads a row in pieces: by lane, by workgroup, by block of columns. Each piece is reduced
//! to a state `(m, s, c)`: the maximum of the piece, the sum without that maximum, and `c`, which is
//! 1 once the piece has a maximum and 0 for an empty or fully masked one, `(−FLT_MAX, 0, 0)`. Two
//! states merge by bringing the smaller one, with the 1 that it had left out, to the larger maximum:
//!
//! ```text
//! (m₁, s₁, c₁) ∘ (m₂, s₂, c₂) = (m₁, s₁ + (s₂ + c₂)·exp(m₂ − m₁), c₁)     where (c₁, m₁) ≥ (c₂, m₂)
//! ```
//!
//! This is the online normaliser of M. Milakov and N. Gimelshein (*Online normalizer calculation for
//! softmax*, [arXiv:1805.02867](https://arxiv.org/abs/1805.02867)) with the maximum's own term kept
//! apart. In exact arithmetic the order of merging does not matter; in f32 it moves the last bits, so
//! the kernels fix one order for each `K`. From the merged state come `L`, `lse = m + L`, the loss of
//! step 5 and `pₖ = exp(zₖ − m)/(1 + s)`. The numerator of the gradient at the label is `s` when the
//! label attains the maximum, and `1 + (s − exp(z_c − m))` otherwise, where the 1 keeps the
//! difference harmless. (With a tie it is no matter which maximum was left out: both ways give `s`.)
//!
//! ```
//! use softxent::reference::{Target, row};
//! #[derive(Clone, Copy)]
//! struct State { m: f64, s: f64, c: f64 }
//! const EMPTY: State = State { m: f32::MIN as f64, s: 0.0, c: 0.0 };
//! fn merge(a: State, b: State) -> State {
//!     let (a, b) = if (a.c, a.m) >= (b.c, b.m) { (a, b) } else { (b, a) };
//!     State { s: a.s + (b.s + b.c) * (b.m - a.m).exp(), ..a }
//! }
//! let state = |z: f32| match z {
//!     f32::NEG_INFINITY => EMPTY,
//!     z => State { m: z.into(), s: 0.0, c: 1.0 },
//! };
//!
//! let z = [3.0_f32, f32::NEG_INFINITY, 25.0, 25.0, -1.0, 7.5];
//! let forwards = z.iter().fold(EMPTY, |all, &z| merge(all, state(z)));
//! let backwards = z.iter().fold(EMPTY, |all, &z| merge(state(z), all));
//! let halves = merge(
//!     merge(state(z[0]), merge(state(z[1]), state(z[2]))),
//!     merge(merge(state(z[3]), state(z[4])), state(z[5])),
//! );
//! let whole = row(&z, Target::Index(5));
//! // Each of 6 merges rounds four times, half an ULP to one each.
//! let few = 6.0 * 4.0 * f64::EPSILON;
//! for state in [forwards, backwards, halves] {
//!     assert_eq!(state.m, whole.m);
//!     approx::assert_relative_eq!(state.s, whole.s, max_relative = few);
//!     let label = (7.5 - state.m).exp();
//!     let grad = -(1.0 + (state.s - label)) / (1.0 + state.s);
//!     approx::assert_relative_eq!(grad, whole.grad(5), max_relative = few);
//! }
//! ```
