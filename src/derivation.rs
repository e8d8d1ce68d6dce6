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
//! A kernel reads a row in pieces: blocks of 256 columns, one after the other or many at once. Each
//! piece is reduced to a state `(m, s, c)`: the maximum of the piece, the sum without that maximum, and
//! `c`, which is 1 once the piece has a maximum and 0 for an empty or fully masked one,
//! `(−FLT_MAX, 0, 0)`. Two states merge by bringing the smaller one, with the 1 that it had left out, to
//! the larger maximum:
//!
//! ```text
//! (m₁, s₁, c₁) ∘ (m₂, s₂, c₂) = (m₁, s₁ + (s₂ + c₂)·exp(m₂ − m₁), c₁)     where (c₁, m₁) ≥ (c₂, m₂)
//! ```
//!
//! This is the online normaliser of M. Milakov and N. Gimelshein (*Online normalizer calculation for
//! softmax*, [arXiv:1805.02867](https://arxiv.org/abs/1805.02867)) with the maximum's own term kept
//! apart. In exact arithmetic the order of merging does not matter; in f32 it moves the last bits, so
//! the kernels fix one order for each `K`: a binary tree of neighbouring blocks, and within a block 8
//! lanes of slots of 4 columns. From the merged state come `L`, `lse = m + L`, the loss of
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
//!
//! ### Within a block
//!
//! The maximum of a block is not known before its last column is read. So what lanes add up are pairs
//! `(largest, sum of the others)` of the exponentials, which leave out one maximum without knowing which:
//!
//! ```text
//! (a₁, b₁) + (a₂, b₂) = (max(a₁, a₂), (b₁ + b₂) + min(a₁, a₂))
//! ```
//!
//! An exponential is computed as `e·2ⁿ`, with `e` from `√½` to `√2`, and `exp(z)` may be far from what
//! f32 holds. It is taken relative to a power of two near that of the largest so far, and where a larger one
//! turns up, the sums are multiplied by the quotient of the two. Multiplying by a power of two is exact, as
//! long as no number becomes subnormal, which the kernels see to. So the running maximum changes no bit:
//! whether a kernel knows the maximum from the start, finds it on its way, or is told by its neighbours,
//! the sums are the same. With factors `exp(m − m′)`, which round, they would not be. Only at the end of
//! a block `b` is divided by `a`, and is `s`.
//!
//! (`z` itself stands in the exponential where the maximum of the block is within 208 of 0, and `z − m`
//! where it is not: both differences are exact where they count.)
//!
//! ```
//! use softxent::reference::{Target, row};
//! use std::f32::consts::{LN_2, LOG2_E};
//! // In f32: e and n, a pair and one number more, and the power of two of a maximum.
//! let power_of = |z: f32| (z * LOG2_E).round() as i32;
//! let parts = |z: f32| ((z - power_of(z) as f32 * LN_2).exp(), power_of(z));
//! let add = |[a, b]: [f32; 2], e: f32| [a.max(e), b + a.min(e)];
//! let two_to = |n: i32| 2_f32.powi(n);
//!
//! let z: Vec<f32> = (0..64).map(|i| 0.11 * i as f32 + 0.3 * (7 * i % 5) as f32).collect();
//! let m = z.iter().copied().fold(f32::MIN, f32::max);
//! let known = z.iter().fold([0.0; 2], |pair, &z| {
//!     let (e, n) = parts(z);
//!     add(pair, e * two_to(n - power_of(m)))
//! });
//! let (mut top, mut running) = (z[0], [0.0; 2]);
//! let (mut online, mut at_once) = (0.0_f32, 0.0_f32);
//! for &z in &z {
//!     let raised = z.max(top);
//!     let by = two_to(power_of(top) - power_of(raised));
//!     let (e, n) = parts(z);
//!     running = add(running.map(|sum| sum * by), e * two_to(n - power_of(raised)));
//!     online = online * (top - raised).exp() + (z - raised).exp();
//!     at_once += (z - m).exp();
//!     top = raised;
//! }
//! assert_eq!(running, known);
//! assert_ne!(online, at_once);
//! let [largest, others] = known;
//! // 63 additions and a few roundings of each term, half an ULP each.
//! let s = row(&z, Target::None).s as f32;
//! approx::assert_relative_eq!(others / largest, s, max_relative = 35.0 * f32::EPSILON);
//! ```
//!
//! ## 7. Weights, smoothing, z-loss
//!
//! Class weights `w` and label smoothing `ε` change the labels and nothing else, and the gradient of
//! step 4 holds for any label weights:
//!
//! ```text
//! tₖ = (1 − ε)·yₖ + ε/K
//! ℓ  = Σₖ wₖtₖ·(lse − zₖ)               ∂ℓ/∂zᵢ = pᵢ·Σₖ wₖtₖ − wᵢtᵢ
//! ```
//!
//! `Σwt` is almost never 1, not even with a class index, so `p − t` would be wrong here. The z-loss
//! `λ·lse²` keeps `lse` near 0 (A. Chowdhery et al., *PaLM: Scaling Language Modeling with Pathways*,
//! [arXiv:2204.02311](https://arxiv.org/abs/2204.02311)), and as `∂lse/∂zᵢ = pᵢ`, it adds `2λ·lse·pᵢ`.
//!
//! At an index label the part of step 5 that cancels is taken out first. With `c₁ = (1 − ε)·w_c`, what
//! remains is a true difference, of the size of `ε`:
//!
//! ```text
//! ∂ℓ/∂z_c = −c₁·Σ_{k≠c} exp(zₖ − m)/(1 + s) + (ε/K)·(p_c·Σw − w_c) + 2λ·lse·p_c
//! ```
//!
//! ```
//! use softxent::reference::{RowOptions, Target, row_with};
//! let (z, w) = ([0.5_f32, -1.0, 2.0], [1.0_f32, 3.0, 0.5]);
//! let (epsilon, lambda) = (0.25, 0.125);
//! let options = RowOptions {
//!     class_weights: &w,
//!     label_smoothing: epsilon,
//!     z_loss: lambda,
//!     ..RowOptions::default()
//! };
//! let found = row_with(&z, Target::Index(1), options);
//! let (epsilon, lambda) = (f64::from(epsilon), f64::from(lambda));
//! let t = [epsilon / 3.0, 1.0 - epsilon + epsilon / 3.0, epsilon / 3.0];
//! let wt = [0, 1, 2].map(|k| f64::from(w[k]) * t[k]);
//! let lse = z.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
//! let surprisal = |k: usize| wt[k] * (lse - f64::from(z[k]));
//! let loss = surprisal(0) + surprisal(1) + surprisal(2) + lambda * lse * lse;
//! // Two dozen roundings of numbers below 10, the largest term of the loss.
//! let few = 24.0 * 10.0 * f64::EPSILON;
//! approx::assert_abs_diff_eq!(found.loss, loss, epsilon = few);
//! for k in 0..3 {
//!     let grad = found.p(k) * (wt[0] + wt[1] + wt[2]) - wt[k] + 2.0 * lambda * lse * found.p(k);
//!     approx::assert_abs_diff_eq!(found.grad(k), grad, epsilon = few);
//! }
//!
//! // A confident row with weights: exp(−60) is far below the 2⁻⁵³ of f64's 1.
//! let options = RowOptions { class_weights: &[1.0, 2.0], ..RowOptions::default() };
//! let confident = row_with(&[0.0, 60.0], Target::Index(1), options);
//! assert_eq!(confident.grad(1), -2.0 * f64::exp(-60.0));
//! ```
//!
//! ## 8. Scale and cap
//!
//! Logits may be scaled, `z = s·x`, and then capped, `z = c·tanh(s·x/c)`. The gradient is asked for
//! with respect to `x`, so it is multiplied by the slope:
//!
//! ```text
//! ∂z/∂x = s          with a cap, u = s·x/c:   s·(1 − tanh²u) = s·4q/(1 + q)²,  q = exp(−2|u|)
//! ```
//!
//! `1 − tanh²` is 0 in f32 from a little past `|u|` = 9 on, where `tanh` rounds to 1; the form in `q`
//! has no difference in it.
//!
//! Both come from one reduction, `|u| = n·½·log 2 + r` with `|r|` up to `¼·log 2`, without an exponential: with
//! `t = tanh(r)`, `h = 1 + t` and `f = 2⁻ⁿ·(1 − t)`, whose quotient `f/h` is `q`,
//!
//! ```text
//! tanh|u| = (1 − q)/(1 + q) = (h − f)/(h + f)          1 − tanh²u = 4q/(1 + q)² = 4·h·f/(h + f)²
//! ```
//!
//! `c·tanh` goes into an exponential, so an error of `tanh` counts `c` times. A cap of 64 and 2⁻³¹, a half
//! ULP of `exp`, need a few bits more than f32 has: `r`, `h`, `f` and the quotient are sums of two f32,
//! of which the first have so few bits that their sums and products are exact. Of `t = r − r³/3 + …` only
//! `r` and `r³` need the care, as `r⁵` is below 2⁻¹². Higher caps take sums of two throughout.
//!
//! The product `s·x` of two f32 has 48 bits, and it goes into an exponential: rounded to 24, at
//! `z` = 80, it is off by up to 4·10⁻⁶, and so is `exp(z − m)`, relatively: 64 half ULPs. So the
//! kernels carry `z` as a pair `(hi, lo)` of f32, the value and what rounding took from it, and `lo`
//! joins `z − m` after the subtraction. f64 holds the 48 bits.
//!
//! ```
//! use softxent::reference::{RowOptions, Target, row_with};
//! let options = RowOptions { logit_scale: 0.7, ..RowOptions::default() };
//! let x = [114.3_f32, 103.7];
//! let truth = row_with(&x, Target::None, options);
//! let hi = x.map(|x| 0.7 * x);
//! let exact = x.map(|x| f64::from(0.7_f32) * f64::from(x));
//! let lo = [0, 1].map(|k| (exact[k] - f64::from(hi[k])) as f32);
//! let ratio = (-truth.gap(1)).exp();
//! let off = |d: f64| (d.exp() / ratio - 1.0).abs() / (f64::from(f32::EPSILON) / 2.0);
//! // z near 80 is rounded by up to 2⁻¹⁸, z − m by twice that, and a half ULP is 2⁻²⁴.
//! let alone = off(f64::from(hi[1] - hi[0]));
//! assert!(alone > 8.0 && alone < 128.0, "{alone}");
//! // The rounding of lo is 2⁻²⁴ of it, and that of hi₁ − hi₀, below 8, is exact here (Sterbenz).
//! let both = off(f64::from(hi[1] - hi[0]) + f64::from(lo[1] - lo[0]));
//! assert!(both < 0.01, "{both}");
//!
//! let options = RowOptions { softcap: Some(5.0), ..RowOptions::default() };
//! let row = row_with(&[60.0, 1.0], Target::None, options);
//! let u: f32 = 60.0 / 5.0;
//! assert_eq!(1.0 - u.tanh() * u.tanh(), 0.0);
//! // 4q but for a term of q² and a few roundings, and q = exp(−24) with one of 24 in its argument.
//! approx::assert_relative_eq!(row.slope(0), 4.0 * f64::exp(-24.0), max_relative = 3.0 * f64::exp(-24.0));
//!
//! // The reduction, in f64.
//! for u in [1e-9_f64, 0.1, 0.2, 1.0, 5.0, 20.0] {
//!     let half_log_2 = 0.5 * 2_f64.ln();
//!     let n = (u / half_log_2).round();
//!     let t = (u - n * half_log_2).tanh();
//!     let (h, f) = (1.0 + t, (-n).exp2() * (1.0 - t));
//!     let q = (-2.0 * u).exp();
//!     // The reduction is off by an ε of u, which counts twice in q, and a dozen roundings follow.
//!     let few = (2.0 * u + 12.0) * f64::EPSILON;
//!     approx::assert_abs_diff_eq!((h - f) / (h + f), u.tanh(), epsilon = few);
//!     let slope = 4.0 * q / (1.0 + q).powi(2);
//!     approx::assert_relative_eq!(4.0 * h * f / (h + f).powi(2), slope, max_relative = few);
//! }
//! ```
//!
//! ## 9. The Jacobian product, and the Hessian
//!
//! What comes before softmax in a network needs `J v` of step 2, with `v` the gradient with respect
//! to `p`: `p ⊙ (v − ⟨p, v⟩)`. As `Σp = 1`, any constant may be taken from all of `v`. Taken from it
//! is the one of the largest logit, `v_t`: then the product of a confident row consists of its other
//! classes, as its gradient does in step 5.
//!
//! ```text
//! (J v)ₖ = pₖ·((vₖ − v_t) − Σⱼ pⱼ·(vⱼ − v_t))
//! ```
//!
//! The gradient `p·Σwt − wt + 2λ·lse·p` depends on `z` through `p` and `lse` only. Its derivative is
//! the Hessian of the loss,
//!
//! ```text
//! H = Σwt·J + 2λ·(p pᵀ + lse·J)
//! ```
//!
//! so with `Σwt = 1` and no z-loss `H = J`: the same kernel is softmax's backward pass and the
//! Hessian–vector product of the cross-entropy.
//!
//! ```
//! use softxent::reference::{RowOptions, Target, row_with};
//! use softxent::{Batch, Problem, reference};
//! let (z, v) = ([0.5_f32, -1.0, 2.0], [1.0_f32, 0.5, -1.0]);
//! let problem = Problem::softmax_backward(1, 3).build()?;
//! let jv = reference::run(&problem, &Batch::of(&z).vectors(&v))?.grad.unwrap();
//! let lambda = 0.25;
//! let options = RowOptions { z_loss: lambda, ..RowOptions::default() };
//! // A power of 2 that v and z can take up without rounding.
//! let h = 1.0 / 16384.0;
//! let stepped = |h: f32| [0, 1, 2].map(|k| z[k] + h * v[k]);
//! let (above, below) = (stepped(h), stepped(-h));
//! let at = |z| row_with(z, Target::Index(0), options);
//! let (here, above, below) = (at(&z), at(&above), at(&below));
//! let pv: f64 = (0..3).map(|k| here.p(k) * f64::from(v[k])).sum();
//! let (h, lambda) = (f64::from(h), f64::from(lambda));
//! // The third derivatives of p and p·lse along a v within [−1, 1] are below 16 and 16·lse + 20, and
//! // lse < 2.4; gradients below 4 are good to 8 ε.
//! let third = 16.0 + 2.0 * lambda * (16.0 * 2.4 + 20.0);
//! let tolerance = h * h / 6.0 * third + 4.0 * 8.0 * f64::EPSILON / h;
//! for k in 0..3 {
//!     let hessian = jv[k] + 2.0 * lambda * (here.p(k) * pv + here.lse() * jv[k]);
//!     let slope = (above.grad(k) - below.grad(k)) / (2.0 * h);
//!     approx::assert_abs_diff_eq!(hessian, slope, epsilon = tolerance);
//! }
//! // Confident: p₁ is 1 in f64, and p₁·(1 − p₁) would be 0.
//! let problem = Problem::softmax_backward(1, 2).build()?;
//! let confident = reference::run(&problem, &Batch::of(&[0.0, 60.0]).vectors(&[0.0, 1.0]))?;
//! assert_eq!(confident.grad, Some(vec![-f64::exp(-60.0), f64::exp(-60.0)]));
//! # Ok::<(), softxent::Error>(())
//! ```
//!
//! ## 10. The others
//!
//! `log_softmax = z − lse`, computed as `(z − m) − L`, two terms of one sign. The entropy
//! `H = −Σ p·log p = lse − Σ p·z` is `L + Σ p·(m − z)`, where no term is negative either.
//!
//! ```
//! use softxent::reference::{Target, row};
//! let row = row(&[0.5, -1.0, 2.0], Target::None);
//! let of_log = -(0..3).map(|k| row.p(k) * row.log_p(k)).sum::<f64>();
//! // Three products of numbers whose sum is the entropy, below ln 3: a dozen roundings of half an ULP.
//! approx::assert_relative_eq!(row.entropy(), of_log, max_relative = 12.0 * f64::EPSILON);
//! approx::assert_abs_diff_eq!(row.log_p(1), -1.0 - row.lse(), epsilon = 12.0 * f64::EPSILON);
//! ```
