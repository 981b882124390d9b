//! Frankle, Carbin 2019, *The lottery ticket hypothesis*: tickets, and what they are compared with.
//!
//! `cargo run --release --example lottery_ticket -- [--quick] [--held-out] [--seeds 0,1,2] [--out FOLDER]`

use lacuna::Result;
use lacuna::nn::Network;
use lacuna::paper::{DigitImages, Figures, Options, Study};
use lacuna::report::{Figure, Table};
use lacuna::rng::Seed;
use lacuna::sparse_training::{Control, LotteryTickets, controlled, winning_tickets};
use lacuna::train::{side_by_side, train_model};

/// Rounds of pruning after which 21.1, 13.5 and 3.6 % of the weights are left.
const ROUNDS: [usize; 3] = [7, 9, 15];
const CONTROLS: [(&str, Control); 2] = [("re-initialised", Control::Reinitialised), ("shuffled mask", Control::ShuffledMask)];

/// What a training led to: its epochs up to the lowest test loss, that loss, and the accuracy at the end, %.
#[derive(Debug, Clone, Copy, Default)]
struct Trained {
    lowest: (usize, f64),
    accuracy: f64,
}

/// Trains, and looks at the test loss after every epoch.
fn trained(images: &DigitImages, network: &mut Network, epochs: usize, seed: Seed) -> Result<Trained> {
    let mut found = Trained { lowest: (0, f64::INFINITY), accuracy: 0.0 };
    let mut seen = |network: &mut Network, epoch: usize, _: f64| {
        let loss = images.test_loss(network);
        if loss < found.lowest.1 {
            found.lowest = (epoch + 1, loss);
        }
        Ok(())
    };
    train_model(network, &images.samples(), &DigitImages::config(epochs, seed), &mut seen)?;
    found.accuracy = images.accuracy(network);
    Ok(found)
}

/// Of one seed: all tickets with their densities, and each control at each of [`ROUNDS`].
struct Found {
    tickets: Vec<(f64, Trained)>,
    controls: Vec<[Trained; CONTROLS.len()]>,
    signs: Trained,
}

fn of_seed(options: &Options, seed: Seed) -> Result<Found> {
    let images = DigitImages::load(options, 4000, seed)?;
    let epochs = options.pick(10, 8);
    let start = DigitImages::network(options, seed)?;
    let settings = LotteryTickets { others: vec![("fc3".into(), 0.1)], rounds: ROUNDS[2], ..LotteryTickets::default() };
    let mut tickets = Vec::new();
    let drawn = winning_tickets(&start, &settings, |network, _| {
        tickets.push(trained(&images, network, epochs, seed)?);
        Ok(())
    })?;
    let fresh = DigitImages::network(options, Seed(1000 + seed.0))?;
    let control = |round: usize, control| {
        trained(&images, &mut controlled(&start, &fresh, &drawn[round].masks, control, seed)?, epochs, seed)
    };
    let controls = ROUNDS.map(|round| CONTROLS.map(|(_, c)| control(round, c)));
    let controls = controls.into_iter().map(|of| Ok(of.into_iter().collect::<Result<Vec<_>>>()?.try_into().unwrap_or_default()));
    let signs = control(ROUNDS[1], Control::SignConstant)?;
    let tickets = drawn.iter().map(|ticket| ticket.density()).zip(tickets).collect();
    Ok(Found { tickets, controls: controls.collect::<Result<_>>()?, signs })
}

/// Runs the experiments.
pub fn run(options: &Options) -> Result<Study> {
    let mut study = Study::default();
    let seeds = options.seeds();
    let found = side_by_side(seeds.len(), |k| of_seed(options, seeds[k]))?;
    let columns =
        ["seed", "network", "fraction of weights kept", "test accuracy, %", "epochs to the lowest test loss", "lowest test loss"];
    let mut rows = Table::new(columns);
    for (seed, found) in seeds.iter().zip(&found) {
        let mut row = |name: &str, density: f64, of: &Trained| {
            rows.row((seed.0, name, density, of.accuracy, of.lowest.0, of.lowest.1));
        };
        found.tickets.iter().for_each(|(density, of)| row("winning ticket", *density, of));
        for (round, of) in ROUNDS.iter().zip(&found.controls) {
            CONTROLS.iter().zip(of).for_each(|((name, _), of)| row(name, found.tickets[*round].0, of));
        }
        row("signs alone", found.tickets[ROUNDS[1]].0, &found.signs);
    }
    let each = |f: &dyn Fn(&Found) -> f64| -> Vec<(Seed, f64)> { seeds.iter().copied().zip(found.iter().map(f)).collect() };
    let ticket = |round: usize| move |f: &Found| f.tickets[round].1;
    let less =
        |round: usize, control: usize| move |f: &Found| f.tickets[ROUNDS[round]].1.accuracy - f.controls[round][control].accuracy;
    let ours = options.pick("64-60-30-10, digits 8×8, 10 epochs", "LeNet-300-100, 4000 of MNIST, 8 epochs");
    let c = study.claims.setting("LeNet-300-100, MNIST, 55 epochs", ours);
    c.add("dense: test accuracy, %", "98", options.pick("mean > 90", "mean > 93"), 2)?.extend(each(&|f| ticket(0)(f).accuracy));
    c.add("ticket of 21.1 % less re-initialised: points of accuracy", "about 0.5", "mean > 0", 2)?.extend(each(&less(0, 0)));
    c.add("ticket of 13.5 % less re-initialised: points of accuracy", "about 1", "mean > 0", 2)?.extend(each(&less(1, 0)));
    c.add("ticket of 3.6 % less re-initialised: points of accuracy", "above 0", "mean > 0", 2)?.extend(each(&less(2, 0)));
    c.add("ticket of 13.5 % less shuffled mask: points of accuracy", "above 0", "mean > 0", 2)?.extend(each(&less(1, 1)));
    if !options.quick {
        let what = "ticket of 13.5 % less dense: points of accuracy";
        c.add(what, "0.3", "mean > 0", 2)?.extend(each(&|f| ticket(9)(f).accuracy - ticket(0)(f).accuracy));
        let what = "ticket of 3.6 % less dense: points of accuracy";
        c.add(what, "about 0", "mean in -0.5 .. 1", 2)?.extend(each(&|f| ticket(15)(f).accuracy - ticket(0)(f).accuracy));
        let what = "signs alone less re-initialised, 13.5 %: points of accuracy";
        c.add(what, "above 0 (Zhou et al.)", "mean > 0", 2)?.extend(each(&|f| f.signs.accuracy - f.controls[1][0].accuracy));
        let epochs = |of: &Trained| of.lowest.0 as f64;
        let what = "epochs to the lowest test loss, 21.1 %: re-initialised over ticket";
        c.add(what, "2.51", "mean > 1", 2)?.extend(each(&|f| epochs(&f.controls[0][0]) / epochs(&ticket(7)(f))));
        let what = "the same, dense over ticket";
        c.add(what, "1.61", "mean > 1", 2)?.extend(each(&|f| epochs(&ticket(0)(f)) / epochs(&ticket(7)(f))));
    }
    let what = "lowest test loss, 13.5 %: re-initialised less ticket, nats";
    c.add(what, "above 0", "mean > 0", 3)?.extend(each(&|f| f.controls[1][0].lowest.1 - ticket(9)(f).lowest.1));
    study.tables.push(("tickets".into(), rows));
    Ok(study)
}

/// Accuracy, and epochs to the lowest loss, against the fraction of weights that is kept.
pub fn draw(study: &Study) -> Result<Figures> {
    let (x, rows) = ("fraction of weights kept", study.table("tickets")?);
    let figure = |title: &str, y: &str| -> Result<String> {
        let mut figure = Figure::new(title, x, y).log_x().error_bars();
        for name in ["winning ticket", "re-initialised", "shuffled mask"] {
            figure = figure.line(name, &rows.only("network", name)?, x, y)?;
        }
        figure.to_svg()
    };
    let speed = figure("How soon", "epochs to the lowest test loss")?;
    Ok(vec![("accuracy".into(), figure("How well", "test accuracy, %")?), ("speed".into(), speed)])
}

#[allow(dead_code)] // tests call `run`
fn main() -> std::process::ExitCode {
    lacuna::paper::main("lottery_ticket", run, draw)
}
