//! All kernels against multi-precision values: the golden cases, and a trained classifier's logits.

use approx::assert_relative_eq;
use softxent::{Reduction, Strategy};

use crate::cases::{digits, golden, json, number, numbers};
use crate::common::{gpu, report};
use crate::judge::{Worst, judge, ulp};

#[test]
fn kernels_agree_with_multi_precision() {
    let engine = gpu!();
    let mut worst = Worst::default();
    for golden in golden() {
        for kernel in Strategy::ALL {
            let found = golden.case.run(engine, kernel);
            if let Err(why) = judge(
                &golden.case,
                kernel.name(),
                &found,
                &golden.expect,
                &mut worst,
            ) {
                panic!("{why}");
            }
        }
    }
    report(&format!("golden cases, off at most by\n{worst}"));
}

#[test]
fn digits_agree_with_multi_precision() {
    let engine = gpu!();
    let expected = json("data/digits_expected.json");
    let field = |name: &str| number(&expected[name]).unwrap();
    for kernel in Strategy::ALL {
        let mean = digits();
        let found = mean.run(engine, kernel);
        let sum = mean.clone().reduce(Reduction::Sum).run(engine, kernel);
        let (mean_loss, sum_loss) = (f64::from(found.loss.unwrap()), f64::from(sum.loss.unwrap()));
        assert_relative_eq!(
            mean_loss,
            field("loss_mean_exact"),
            max_relative = 1e-7,
            epsilon = 0.0
        );
        assert_relative_eq!(
            sum_loss,
            field("loss_sum_exact"),
            max_relative = 1e-7,
            epsilon = 0.0
        );
        assert_eq!(found.correct.unwrap() as f64, field("correct"));
        judge(
            &mean,
            kernel.name(),
            &found,
            &mean.oracle(),
            &mut Worst::default(),
        )
        .unwrap();

        let samples = expected["sample"].as_array().unwrap();
        assert!(samples.len() >= 70);
        // Terms below 2⁻¹²⁶ may be flushed.
        let slack = 10.0 * f64::from(f32::MIN_POSITIVE);
        for sample in samples {
            let row = sample["row"].as_u64().unwrap() as usize;
            let loss = (
                f64::from(found.losses.as_ref().unwrap()[row]),
                number(&sample["loss"]).unwrap(),
            );
            assert!(
                (loss.0 - loss.1).abs() <= 4.0 * ulp(loss.1) + slack,
                "row {row}: loss {loss:?}"
            );
            let grad = &found.grad.as_ref().unwrap()[mean.row(row)];
            for (j, (&found, exact)) in grad
                .iter()
                .zip(numbers(&sample["gradient"]).unwrap())
                .enumerate()
            {
                let off = (f64::from(found) - exact).abs();
                assert!(
                    off <= 10.0 * ulp(exact) + slack,
                    "row {row}, class {j}: {found:e} for {exact:e}"
                );
            }
        }
    }
}
