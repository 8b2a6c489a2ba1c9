use crate::step::Program;
pub(crate) const PROGRAMS: &[Program] = &[];
