//! The engine cores' CPUs: isolation, interrupts, frequency, real-time throttling.

use super::machine::Machine;
use super::{Finding, Purpose};

pub(super) fn examine(machine: &Machine, purpose: &Purpose, findings: &mut Vec<Finding>) {
    let alone = machine.online().iter().all(|cpu| purpose.engine.contains(cpu));
    findings.push(isolated(machine, purpose, alone));
    findings.push(interrupts(machine, purpose, alone));
    findings.push(irqbalance(machine, purpose, alone));
    findings.push(governor(machine, purpose));
    findings.push(real_time(machine));
}

fn list(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// CPUs that no engine core has.
fn others(machine: &Machine, purpose: &Purpose) -> String {
    list(&machine.online().into_iter().filter(|cpu| !purpose.engine.contains(cpu)).collect::<Vec<_>>())
}

fn isolated(machine: &Machine, purpose: &Purpose, alone: bool) -> Finding {
    const SUBJECT: &str = "isolated-cpus";
    let isolated = machine.cpus("/sys/devices/system/cpu/isolated");
    let engine = list(&purpose.engine);
    if purpose.engine.iter().all(|cpu| isolated.contains(cpu)) {
        return Finding::fine(SUBJECT, format!("CPU {engine} of the engine"));
    }
    let found = if isolated.is_empty() { "none".to_owned() } else { format!("only {}", list(&isolated)) };
    let fix = if alone {
        "leave a CPU to the others: name fewer engine cores, or give the machine more CPUs".to_owned()
    } else {
        format!("add to the kernel's command line: isolcpus=domain,managed_irq,{engine} nohz_full={engine} rcu_nocbs={engine}")
    };
    Finding::untuned(
        SUBJECT,
        format!("{found}; the engine is on CPU {engine}"),
        "other programs run on the engine's CPUs, and its packets wait meanwhile: milliseconds at a time",
        vec![fix],
    )
}

fn interrupts(machine: &Machine, purpose: &Purpose, alone: bool) -> Finding {
    const SUBJECT: &str = "interrupts";
    if alone {
        return Finding::fine(SUBJECT, "every CPU is the engine's: there is nowhere else for them");
    }
    let lands_on_engine = |irq: &String| {
        let effective = machine.cpus(&format!("/proc/irq/{irq}/effective_affinity_list"));
        effective.iter().any(|cpu| purpose.engine.contains(cpu))
    };
    let numbers = machine.names("/proc/irq").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let mut here: Vec<String> = numbers.filter(lands_on_engine).collect();
    here.sort_by_key(|irq| irq.parse::<u32>().unwrap_or(u32::MAX));
    let engine = list(&purpose.engine);
    if here.is_empty() {
        return Finding::fine(SUBJECT, format!("none is delivered to CPU {engine}"));
    }
    let numbers = here.join(" ");
    Finding::untuned(
        SUBJECT,
        format!("{numbers} are delivered to the engine's CPU {engine}"),
        "each one holds the engine up, some for tens of microseconds; `grep . /proc/irq/*/actions` tells whose they are",
        vec![format!(
            "for irq in {numbers}; do echo {} > /proc/irq/$irq/smp_affinity_list; done (the kernel keeps a few where they are)",
            others(machine, purpose)
        )],
    )
}

fn irqbalance(machine: &Machine, purpose: &Purpose, alone: bool) -> Finding {
    const SUBJECT: &str = "irqbalance";
    if alone || !machine.runs("irqbalance") {
        return Finding::fine(SUBJECT, "not running");
    }
    let engine = list(&purpose.engine);
    let setting = machine.text("/etc/default/irqbalance").unwrap_or_default();
    let banned = setting.lines().find_map(|line| line.trim().strip_prefix("IRQBALANCE_BANNED_CPULIST="));
    let banned = banned.and_then(|value| value.trim_matches('"').parse::<crate::units::CpuList>().ok());
    if banned.is_some_and(|banned| purpose.engine.iter().all(|cpu| banned.as_slice().contains(cpu))) {
        return Finding::fine(SUBJECT, format!("running, kept off CPU {engine}"));
    }
    Finding::untuned(
        SUBJECT,
        "running",
        "it moves interrupts to the engine's CPUs every ten seconds",
        vec![format!("echo 'IRQBALANCE_BANNED_CPULIST=\"{engine}\"' >> /etc/default/irqbalance && systemctl restart irqbalance")],
    )
}

fn governor(machine: &Machine, purpose: &Purpose) -> Finding {
    const SUBJECT: &str = "cpu-governor";
    let of = |cpu: &u32| machine.text(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")).map(|name| (*cpu, name));
    let governors: Vec<(u32, String)> = purpose.engine.iter().filter_map(of).collect();
    let slow: Vec<&(u32, String)> = governors.iter().filter(|(_, name)| name != "performance").collect();
    match slow.first() {
        None if governors.is_empty() => Finding::fine(SUBJECT, "the frequency is not this system's to choose"),
        None => Finding::fine(SUBJECT, "performance"),
        Some((_, name)) => {
            let cpus = list(&slow.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>());
            Finding::untuned(
                SUBJECT,
                format!("{name} on CPU {cpus}"),
                "the CPU slows down between packets and wakes late for the next",
                vec![format!(
                    "for cpu in {}; do echo performance > /sys/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor; done",
                    cpus.replace(',', " ")
                )],
            )
        }
    }
}

fn real_time(machine: &Machine) -> Finding {
    const SUBJECT: &str = "real-time-throttling";
    match machine.number("/proc/sys/kernel/sched_rt_runtime_us") {
        None => Finding::fine(SUBJECT, "not in this kernel"),
        Some(-1) => Finding::fine(SUBJECT, "off"),
        Some(runtime_us) => {
            let period_us = machine.number("/proc/sys/kernel/sched_rt_period_us").unwrap_or(1_000_000);
            Finding::untuned(
                SUBJECT,
                format!("real-time threads are stopped after {runtime_us} of {period_us} us"),
                format!("an engine core that runs with real-time priority and polls loses {} us of every period", period_us - runtime_us),
                vec![
                    "sysctl -w kernel.sched_rt_runtime_us=-1".into(),
                    "echo kernel.sched_rt_runtime_us=-1 > /etc/sysctl.d/60-tactus-realtime.conf".into(),
                ],
            )
        }
    }
}
