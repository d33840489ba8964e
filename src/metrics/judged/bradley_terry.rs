//! Ratings of models from battles of two (R. Bradley, M. Terry, Biometrika 39, 1952) by maximum likelihood, with bootstrap
//! intervals and control of style, as Arena-Hard v0.1 makes its leaderboard (lmarena/arena-hard-auto, `show_result.py` and
//! `utils_math.py` of September 2024; the control of style is that of W. Chiang and others, Chatbot Arena, arXiv 2403.04132).
//!
//! `P(a beats b) = 1 / (1 + 10^((R_b − R_a) / 400))`; a tie is half a win of each. Without style, battles of the same two models
//! are one row of counts, so that a fit costs what the pairs cost and not what the battles cost.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::rng::Rng;
use crate::stats::{Features, Interval, Penalty, fit_logistic, quantile, standard_deviation};

/// Rating points for a factor of ten in the odds.
const SCALE: f64 = 400.0;
/// The baseline's rating, or the mean of all without one.
const ANCHOR: f64 = 1000.0;
/// Keeps the rating of a model that won or lost everything finite, and moves no other in the digits that count.
const HARDLY_ANY: f64 = 1e-9;
/// What scikit-learn's default `C = 1` is to every battle counted twice, as the published control of style has it.
const PUBLISHED_STYLE_PENALTY: f64 = 1.0;

/// A battle of two answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Battle {
    /// Position of the first model.
    pub a: usize,
    /// Position of the second.
    pub b: usize,
    /// What share of it the first wins: 1, 0.5 for a tie, 0.
    pub score: f64,
    /// How often it counts.
    pub weight: f64,
    /// What it is drawn with, such as the prompt, where resamples draw clusters.
    pub cluster: usize,
    /// Amounts of each style element in both answers, such as lengths.
    pub style: Vec<(f64, f64)>,
}

/// What a resample draws.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// Copies of battles: one of weight three is three, drawn one by one, as Arena-Hard does it.
    #[default]
    Copies,
    /// Battles with their weights.
    Battles,
    /// Clusters of battles: all those of a prompt, in both orders.
    Clusters,
}

/// How ratings are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Position of the model that is rated 1000, and against which win rates are.
    pub baseline: Option<usize>,
    /// What a resample draws.
    pub resample: Resample,
    /// How many resamples there are.
    pub n_resamples: usize,
    /// The share of resamples that an interval spans.
    pub level: f64,
    /// The seed of the resamples.
    pub seed: u64,
}

/// A figure with its interval and the deviation of the resamples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The interval of the resamples' percentiles, linear between neighbours.
    pub interval: Interval,
    /// The resamples' sample deviation; none for a single resample.
    pub deviation: Option<f64>,
}

/// A model's place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rating {
    /// Its rating.
    pub rating: Estimate,
    /// Its probability of beating the baseline, if there is one.
    pub win_rate: Option<Estimate>,
    /// Battles that it was in, by weight.
    pub n_battles: f64,
}

/// Ratings of all models, and what style was worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratings {
    /// A rating a model.
    pub ratings: Vec<Rating>,
    /// A coefficient a style element, in natural log-odds for one deviation of its standardised difference.
    pub style: Vec<f64>,
}

/// Rates models by their battles. With styles, each battle's relative differences `(x_a − x_b) / (x_a + x_b + 1)`, standardised
/// over all battles, stand beside the models, and the whole is penalised as published.
pub fn rate(models: &[String], battles: &[Battle], settings: &Settings) -> Result<Ratings, Error> {
    let Settings { level, n_resamples, .. } = *settings;
    if !(level > 0.0 && level < 1.0) || n_resamples == 0 {
        return Err(Error::BadInterval { level, n_resamples });
    }
    check_connected(models, battles)?;
    let table = Tally::new(models.len(), battles)?;
    let all: Vec<(usize, f64)> = battles.iter().enumerate().map(|(i, battle)| (i, battle.weight)).collect();
    let (ratings, style) = table.fit(battles, &all, settings.baseline)?;

    let units = units(battles, settings.resample)?;
    let mut draws: Vec<Vec<f64>> = vec![Vec::with_capacity(n_resamples); models.len()];
    for resample in 0..n_resamples {
        let mut rng = Rng::labelled(settings.seed, &format!("battles/{resample}"));
        let drawn: Vec<(usize, f64)> =
            (0..units.len()).flat_map(|_| units[rng.index(units.len())].iter().copied()).collect();
        let (found, _) = table.fit(battles, &drawn, settings.baseline)?;
        draws.iter_mut().zip(found).for_each(|(draws, rating)| draws.push(rating));
    }
    let rating = |model: usize| {
        let n_battles = battles.iter().filter(|b| b.a == model || b.b == model).map(|b| b.weight).sum();
        let win_rate = |rating: f64| 1.0 / (1.0 + 10_f64.powf((ANCHOR - rating) / SCALE));
        let win_rates: Vec<f64> = draws[model].iter().map(|rating| win_rate(*rating)).collect();
        Rating {
            rating: estimate(ratings[model], draws[model].clone(), level),
            win_rate: settings.baseline.map(|_| estimate(win_rate(ratings[model]), win_rates, level)),
            n_battles,
        }
    };
    Ok(Ratings { ratings: (0..models.len()).map(rating).collect(), style })
}

fn estimate(value: f64, mut draws: Vec<f64>, level: f64) -> Estimate {
    let deviation = standard_deviation(&draws);
    draws.sort_unstable_by(f64::total_cmp);
    let at = |fraction| quantile(&draws, fraction);
    Estimate { value, interval: Interval { low: at((1.0 - level) / 2.0), high: at((1.0 + level) / 2.0) }, deviation }
}

/// What resamples draw: battles with the weights that they have in a unit.
fn units(battles: &[Battle], resample: Resample) -> Result<Vec<Vec<(usize, f64)>>, Error> {
    let whole = battles.iter().enumerate();
    Ok(match resample {
        Resample::Battles => whole.map(|(i, battle)| vec![(i, battle.weight)]).collect(),
        Resample::Copies => {
            let mut units = Vec::new();
            for (i, battle) in whole {
                if battle.weight.fract() != 0.0 {
                    return Err(Error::WeightNotWhole { weight: battle.weight });
                }
                units.extend((0..battle.weight as usize).map(|_| vec![(i, 1.0)]));
            }
            units
        }
        Resample::Clusters => {
            let mut clusters: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
            for (i, battle) in whole {
                clusters.entry(battle.cluster).or_default().push((i, battle.weight));
            }
            clusters.into_values().collect()
        }
    })
}

/// Ratings of models that never met, even by way of others, cannot be compared.
fn check_connected(models: &[String], battles: &[Battle]) -> Result<(), Error> {
    let mut part: Vec<usize> = (0..models.len()).collect();
    fn root(part: &mut [usize], mut model: usize) -> usize {
        while part[model] != model {
            part[model] = part[part[model]];
            model = part[model];
        }
        model
    }
    for battle in battles {
        let (a, b) = (root(&mut part, battle.a), root(&mut part, battle.b));
        part[a] = b;
    }
    let first = if models.is_empty() { 0 } else { root(&mut part, 0) };
    match (0..models.len()).find(|model| root(&mut part, *model) != first) {
        None => Ok(()),
        Some(other) => Err(Error::Unconnected { one: models[0].clone(), other: models[other].clone() }),
    }
}

/// Battles as rows of a regression.
struct Tally {
    features: Features,
    n_models: usize,
    n_styles: usize,
    /// The row of each battle, and whether its first model stands there as the second.
    place: Vec<(usize, bool)>,
}

impl Tally {
    fn new(n_models: usize, battles: &[Battle]) -> Result<Self, Error> {
        let styles = standardised(battles)?;
        let n_styles = styles.first().map_or(0, Vec::len);
        let mut tally = Self { features: Features::new(n_models + n_styles), n_models, n_styles, place: Vec::new() };
        let mut rows: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (i, battle) in battles.iter().enumerate() {
            let swapped = n_styles == 0 && battle.a > battle.b;
            let (a, b) = if swapped { (battle.b, battle.a) } else { (battle.a, battle.b) };
            let next = tally.features.n_rows();
            let row = if n_styles == 0 { *rows.entry((a, b)).or_insert(next) } else { next };
            if row == next {
                let models = [(a, std::f64::consts::LN_10), (b, -std::f64::consts::LN_10)];
                let style = styles.get(i).into_iter().flatten().enumerate();
                tally.features.push(models.into_iter().chain(style.map(|(j, value)| (n_models + j, *value))));
            }
            tally.place.push((row, swapped));
        }
        Ok(tally)
    }

    /// Ratings and style coefficients by battles with weights.
    fn fit(
        &self,
        battles: &[Battle],
        used: &[(usize, f64)],
        baseline: Option<usize>,
    ) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let (mut wins, mut totals) = (vec![0.0; self.features.n_rows()], vec![0.0; self.features.n_rows()]);
        for (i, weight) in used {
            let (row, swapped) = self.place[*i];
            let score = if swapped { 1.0 - battles[*i].score } else { battles[*i].score };
            // The published program counts every battle twice, to halve ties; with a penalty that matters.
            wins[row] += 2.0 * weight * score;
            totals[row] += 2.0 * weight;
        }
        let targets: Vec<f64> = wins.iter().zip(&totals).map(|(w, t)| if *t > 0.0 { w / t } else { 0.5 }).collect();
        let penalty = if self.n_styles == 0 { HARDLY_ANY } else { PUBLISHED_STYLE_PENALTY };
        let beta = fit_logistic(&self.features, &targets, &totals, Penalty::L2(penalty))?;
        let (models, style) = beta.split_at(self.n_models);
        let origin = match baseline {
            Some(baseline) => models[baseline],
            None => models.iter().sum::<f64>() / models.len() as f64,
        };
        Ok((models.iter().map(|c| ANCHOR + SCALE * (c - origin)).collect(), style.to_vec()))
    }
}

/// Each battle's standardised style differences; empty without styles.
fn standardised(battles: &[Battle]) -> Result<Vec<Vec<f64>>, Error> {
    let n_styles = battles.first().map_or(0, |battle| battle.style.len());
    if n_styles == 0 {
        return Ok(Vec::new());
    }
    let weights: f64 = battles.iter().map(|battle| battle.weight).sum();
    let mut differences: Vec<Vec<f64>> =
        battles.iter().map(|battle| battle.style.iter().map(|(a, b)| (a - b) / (a + b + 1.0)).collect()).collect();
    for element in 0..n_styles {
        let weighted = |value: &dyn Fn(f64) -> f64| {
            let sum: f64 =
                differences.iter().zip(battles).map(|(row, battle)| battle.weight * value(row[element])).sum();
            sum / weights
        };
        let mean = weighted(&|x| x);
        let deviation = weighted(&|x| (x - mean).powi(2)).sqrt();
        if !(deviation > 0.0 && deviation.is_finite()) {
            return Err(Error::StyleWithoutSpread { element });
        }
        for row in &mut differences {
            row[element] = (row[element] - mean) / deviation;
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests;
