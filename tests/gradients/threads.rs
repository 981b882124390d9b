//! The same bits for any number of threads.

use crate::nets::{LOSSES, Net, data, direction};
use lacuna::nn::Pooling::Max;
use lacuna::nn::{Activation, Curvature, Loss, Method, Mode, Network, Optimizer};
use ndarray::Array2;

/// Images and batches large enough for every loop to be spread.
fn convnet() -> Network {
    Net::new(1, 768)
        .conv((3, 16, 16), 8, (5, 5), 1, 2)
        .norm(8)
        .act(Activation::Gelu)
        .pool(Max, (8, 16, 16), 2, 2)
        .conv((8, 8, 8), 16, (3, 3), 1, 0)
        .act(Activation::Relu)
        .linear(10)
        .build()
}

fn mlp() -> Network {
    Net::new(2, 256).linear(1200).norm(1200).act(Activation::Tanh).linear(300).act(Activation::Silu).linear(10).build()
}

/// The bits of every pass, named.
fn passes(net: &Network, x: &Array2<f32>, target: &Array2<f32>, loss: Loss) -> Vec<(&'static str, Vec<u32>)> {
    let bits = |arrays: Vec<Array2<f32>>| arrays.iter().flatten().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let train = net.gradient(x, target, loss, Mode::Train).1;
    let mut trained = net.clone();
    Optimizer::new(Method::AdamW { weight_decay: 0.1 }).step(&mut trained, &net.named(train.clone()), 0.01).unwrap();
    let trained = trained.params().iter().map(|(_, p)| p.value().clone()).collect();
    vec![
        ("forward", bits(vec![net.forward(x)])),
        ("gradient, train", bits(train)),
        ("gradient, eval", bits(net.gradient(x, target, loss, Mode::Eval).1)),
        ("fisher", bits(net.fisher(x, target, loss))),
        ("curvature, exact", bits(net.curvature(x, target, loss, Curvature::Exact))),
        ("curvature, Gauss-Newton", bits(net.curvature(x, target, loss, Curvature::GaussNewton))),
        ("Hessian", bits(net.hessian_times(x, target, loss, &direction(net, 1)))),
        ("synaptic flow", bits(net.synaptic_flow())),
        ("a step", bits(trained)),
    ]
}

#[test]
fn one_thread_two_and_three_give_the_same_bits() {
    for (name, net) in [("convnet", convnet()), ("mlp", mlp())] {
        for loss in LOSSES {
            // No multiple of eight: the last task is smaller than the others.
            let (x, target) = data(&net, 3, 67, loss);
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| passes(&net, &x, &target, loss))
            };
            let one = run(1);
            assert!(one.iter().all(|(_, bits)| bits.iter().any(|&b| b != 0)));
            for threads in [2, 3] {
                for ((pass, a), (_, b)) in one.iter().zip(run(threads)) {
                    let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
                    assert_eq!(differing, 0, "{name}, {loss:?}, {pass}: bits that differ with {threads} threads, of {}", a.len());
                }
            }
        }
    }
}
