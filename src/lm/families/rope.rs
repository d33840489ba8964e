//! Reads the rotary embedding of a `config.json`: `rope_theta` with `rope_scaling`, or
//! `rope_parameters`, where newer configurations keep both.
//!
//! It must not know any family. Defaults and the order of what wins follow
//! `huggingface/transformers` `modeling_rope_utils.py`.

use super::fields::Fields;
use crate::arch::{Rope, RopeScaling};
use crate::error::Result;

/// Values of `rope_type`, or `type` in older configurations, that are understood.
const KINDS: &str = "default, linear, dynamic, yarn, longrope, llama3";
const BETA_FAST: f64 = 32.0;
const BETA_SLOW: f64 = 1.0;

/// What the settings of one rotary embedding do not say themselves.
pub struct RopeContext {
    /// Base where none is named.
    pub theta: f64,
    /// How many dimensions of a head are turned.
    pub width: i64,
    /// Context of the first training, where the configuration names it outside of these settings.
    pub original_max_positions: Option<i64>,
}

impl Fields<'_> {
    /// Returns the rotary embedding of a family that turns whole heads.
    pub fn rope(&self, default_theta: f64, head_dim: i64) -> Result<Rope> {
        let settings = self.rope_settings()?;
        for fields in [Some(self), settings.as_ref()].into_iter().flatten() {
            if fields.float_or("partial_rotary_factor", 1.0)? != 1.0 {
                return Err(fields.unfit("partial_rotary_factor", "1: this family turns whole heads"));
            }
        }
        let original_max_positions = self.optional_int("original_max_position_embeddings")?;
        let theta = self.float_or("rope_theta", default_theta)?;
        self.rope_of(settings.as_ref(), RopeContext { theta, width: head_dim, original_max_positions })
    }

    /// Returns `rope_scaling` or `rope_parameters`, if one of them holds something.
    pub fn rope_settings(&self) -> Result<Option<Self>> {
        for field in ["rope_scaling", "rope_parameters"] {
            if let Some(settings) = self.object(field)?.filter(|settings| !settings.is_empty()) {
                return Ok(Some(settings));
            }
        }
        Ok(None)
    }

    /// Reads one group of settings of this configuration.
    pub fn rope_of(&self, settings: Option<&Self>, context: RopeContext) -> Result<Rope> {
        let RopeContext { theta, width, original_max_positions } = context;
        let Some(settings) = settings else { return Ok(Rope { theta, width, scaling: RopeScaling::Default }) };
        let theta = settings.float_or("rope_theta", theta)?;
        let max_positions = self.int("max_position_embeddings")?;
        let original = || -> Result<f64> {
            let own = settings.optional_int("original_max_position_embeddings")?;
            Ok(original_max_positions.or(own).unwrap_or(max_positions).max(1) as f64)
        };
        let implied = |original: f64| max_positions as f64 / original;
        let field = if settings.has("rope_type") { "rope_type" } else { "type" };
        let scaling = match settings.text_or(field, "default")? {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: settings.positive("factor")? },
            "dynamic" => {
                RopeScaling::Dynamic { factor: settings.positive("factor")?, max_positions: max_positions as f64 }
            }
            "llama3" => RopeScaling::Llama3 {
                factor: settings.positive("factor")?,
                low_freq_factor: settings.positive("low_freq_factor")?,
                high_freq_factor: settings.positive("high_freq_factor")?,
                original_max_positions: original()?,
            },
            "yarn" => {
                let factor = settings.optional_positive("factor")?.unwrap_or(implied(original()?));
                RopeScaling::Yarn {
                    factor,
                    beta_fast: settings.optional_positive("beta_fast")?.unwrap_or(BETA_FAST),
                    beta_slow: settings.optional_positive("beta_slow")?.unwrap_or(BETA_SLOW),
                    truncate: settings.bool_or("truncate", true)?,
                    original_max_positions: original()?,
                    magnitude: match settings.optional_float("attention_factor")? {
                        Some(magnitude) => magnitude,
                        None => settings.yarn_magnitude(factor)?,
                    },
                }
            }
            // `su` is the name of the first Phi-3 models.
            "longrope" | "su" => {
                let original = original()?;
                let factor = settings.optional_positive("factor")?.unwrap_or(implied(original));
                RopeScaling::LongRope {
                    short: settings.numbers("short_factor", width / 2)?,
                    long: settings.numbers("long_factor", width / 2)?,
                    original_max_positions: original,
                    magnitude: match settings.optional_float("attention_factor")? {
                        Some(magnitude) => magnitude,
                        None if factor <= 1.0 => 1.0,
                        None => (1.0 + factor.ln() / original.ln()).sqrt(),
                    },
                }
            }
            _ => return Err(settings.unfit(field, format!("one of {KINDS}"))),
        };
        Ok(Rope { theta, width, scaling })
    }

    /// The factor on cosine and sine that YaRN's authors recommend, or DeepSeek's variant of it.
    fn yarn_magnitude(&self, factor: f64) -> Result<f64> {
        let magnitude = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let [scale, scale_all] = ["mscale", "mscale_all_dim"].map(|field| self.float_or(field, 0.0));
        Ok(match (scale?, scale_all?) {
            (0.0, _) | (_, 0.0) => magnitude(1.0),
            (scale, scale_all) => magnitude(scale) / magnitude(scale_all),
        })
    }
}
