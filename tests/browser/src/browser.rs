//! A headless Chromium with one tab, and everything that it complains of or asks the network for.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use headless_chrome::browser::tab::point::Point;
use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Emulation, Input, Log, Network, Page, Runtime};
use headless_chrome::{Browser, LaunchOptions, Tab};
use serde_json::Value;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// One tab.
pub struct Window {
    tab: Arc<Tab>,
    /// Errors of the console, exceptions, and requests that are not for files.
    complaints: Arc<Mutex<Vec<String>>>,
    _browser: Browser,
}

impl Window {
    /// Opens it. Chromium picks its own port; its profile is a temporary folder; it is ended when this is dropped.
    pub fn open(chromium: &Path) -> Result<Self> {
        let options = LaunchOptions {
            path: Some(chromium.to_owned()),
            // As root, in a container, Chromium has no sandbox; the pages are trusted.
            sandbox: false,
            window_size: Some((1440, 1000)),
            idle_browser_timeout: Duration::from_secs(120),
            args: ["--hide-scrollbars", "--force-color-profile=srgb", "--disable-component-update", "--no-first-run"]
                .map(OsStr::new)
                .to_vec(),
            ..LaunchOptions::default()
        };
        let browser = Browser::new(options).context("cannot start chromium")?;
        let tab = browser.new_tab()?;
        tab.set_default_timeout(PATIENCE);
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&complaints);
        tab.enable_runtime()?;
        tab.enable_log()?;
        tab.call_method(Network::Enable {
            max_total_buffer_size: None,
            max_resource_buffer_size: None,
            max_post_data_size: None,
            report_direct_socket_traffic: None,
            enable_durable_messages: None,
        })?;
        tab.add_event_listener(Arc::new(move |event: &Event| {
            if let (Some(words), Ok(mut heard)) = (complaint(event), heard.lock()) {
                heard.push(words);
            }
        }))?;
        Ok(Self { tab, complaints, _browser: browser })
    }

    /// Loads a page anew, also where only the part behind `#` differs.
    pub fn go(&self, url: &str) -> Result<()> {
        self.tab.navigate_to("about:blank")?.wait_until_navigated()?;
        self.tab.navigate_to(url)?.wait_until_navigated()?;
        self.until("performance.getEntriesByName('usable').length > 0")
    }

    /// Loads the same address again.
    pub fn reload(&self) -> Result<()> {
        self.tab.reload(true, None)?.wait_until_navigated()?;
        self.until("performance.getEntriesByName('usable').length > 0")
    }

    /// The value of an expression.
    pub fn value(&self, expression: &str) -> Result<Value> {
        let given = self.tab.call_method(Runtime::Evaluate {
            expression: format!("(() => JSON.stringify({expression}))()"),
            return_by_value: Some(true),
            generate_preview: None,
            silent: None,
            await_promise: None,
            include_command_line_api: None,
            user_gesture: Some(true),
            object_group: None,
            context_id: None,
            throw_on_side_effect: None,
            timeout: None,
            disable_breaks: None,
            repl_mode: None,
            allow_unsafe_eval_blocked_by_csp: None,
            unique_context_id: None,
            serialization_options: None,
        })?;
        if let Some(thrown) = given.exception_details {
            let words = thrown.exception.and_then(|thrown| thrown.description).unwrap_or(thrown.text);
            bail!("`{expression}` throws {words}");
        }
        let text = given.result.value.unwrap_or_default();
        text.as_str().map_or(Ok(Value::Null), |text| Ok(serde_json::from_str(text)?))
    }

    /// A text.
    pub fn text(&self, expression: &str) -> Result<String> {
        Ok(self.value(expression)?.as_str().unwrap_or_default().to_owned())
    }

    /// A number.
    pub fn number(&self, expression: &str) -> Result<f64> {
        self.value(expression)?.as_f64().with_context(|| format!("`{expression}` is not a number"))
    }

    /// Whether something holds now.
    pub fn holds(&self, expression: &str) -> Result<bool> {
        Ok(self.value(expression)? == Value::Bool(true))
    }

    /// Waits until something holds.
    pub fn until(&self, expression: &str) -> Result<()> {
        let began = Instant::now();
        while !self.holds(expression)? {
            if began.elapsed() > PATIENCE {
                bail!("does not come to hold: `{expression}`, at {}", self.text("location.href")?);
            }
            sleep(Duration::from_millis(25));
        }
        Ok(())
    }

    /// The rectangle of an element, scrolled into the middle: left, top, width, height.
    pub fn rectangle(&self, selector: &str) -> Result<[f64; 4]> {
        let found = self.value(&format!(
            "(() => {{ const it = document.querySelector({selector:?}); if (!it) return null; \
             it.scrollIntoView({{block: 'center', behavior: 'instant'}}); const r = it.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; }})()"
        ))?;
        serde_json::from_value(found).with_context(|| format!("there is no `{selector}`"))
    }

    /// Clicks the middle of an element with the mouse.
    pub fn click(&self, selector: &str) -> Result<()> {
        let [left, top, width, height] = self.rectangle(selector)?;
        self.tab.click_point(Point { x: left + width / 2.0, y: top + height / 2.0 })?;
        Ok(())
    }

    /// Sets a choice, as a person who picks an option does.
    pub fn choose(&self, id: &str, value: &str) -> Result<()> {
        let chosen = self.holds(&format!(
            "(() => {{ const it = document.getElementById({id:?}); it.value = {value:?}; \
             it.dispatchEvent(new Event('change', {{bubbles: true}})); return it.value === {value:?}; }})()"
        ))?;
        if chosen { Ok(()) } else { bail!("`{id}` has no option {value:?}") }
    }

    /// Moves the mouse.
    pub fn hover(&self, x: f64, y: f64) -> Result<()> {
        self.mouse(Input::DispatchMouseEventTypeOption::MouseMoved, x, y, 0)
    }

    /// Presses and releases the mouse where it is.
    pub fn press(&self, x: f64, y: f64) -> Result<()> {
        self.mouse(Input::DispatchMouseEventTypeOption::MousePressed, x, y, 1)?;
        self.mouse(Input::DispatchMouseEventTypeOption::MouseReleased, x, y, 0)
    }

    /// Drags from one place to another.
    pub fn drag(&self, from: (f64, f64), to: (f64, f64)) -> Result<()> {
        self.hover(from.0, from.1)?;
        self.mouse(Input::DispatchMouseEventTypeOption::MousePressed, from.0, from.1, 1)?;
        for step in 1..=8 {
            let share = f64::from(step) / 8.0;
            let (x, y) = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
            self.mouse(Input::DispatchMouseEventTypeOption::MouseMoved, x, y, 1)?;
        }
        self.mouse(Input::DispatchMouseEventTypeOption::MouseReleased, to.0, to.1, 0)
    }

    fn mouse(&self, kind: Input::DispatchMouseEventTypeOption, x: f64, y: f64, buttons: u32) -> Result<()> {
        let moved = kind == Input::DispatchMouseEventTypeOption::MouseMoved;
        let left = (!moved || buttons > 0).then_some(Input::MouseButton::Left);
        self.tab.call_method(Input::DispatchMouseEvent {
            Type: kind,
            x,
            y,
            modifiers: None,
            timestamp: None,
            button: left,
            buttons: Some(buttons),
            click_count: (!moved).then_some(1),
            force: None,
            tangential_pressure: None,
            tilt_x: None,
            tilt_y: None,
            twist: None,
            delta_x: None,
            delta_y: None,
            pointer_Type: None,
        })?;
        Ok(())
    }

    /// Presses a key.
    pub fn key(&self, name: &str) -> Result<()> {
        self.tab.press_key(name)?;
        Ok(())
    }

    /// Types into what has the focus.
    pub fn typed(&self, text: &str) -> Result<()> {
        self.tab.type_str(text)?;
        Ok(())
    }

    /// Emulates the colour preference of the system: `light` or `dark`.
    pub fn prefer(&self, scheme: &str) -> Result<()> {
        let feature = Emulation::MediaFeature { name: "prefers-color-scheme".into(), value: scheme.into() };
        self.tab.call_method(Emulation::SetEmulatedMedia { media: None, features: Some(vec![feature]) })?;
        Ok(())
    }

    /// The size of the window.
    pub fn size(&self, width: u32, height: u32) -> Result<()> {
        self.tab.call_method(Emulation::SetDeviceMetricsOverride {
            width,
            height,
            device_scale_factor: 1.0,
            mobile: false,
            scale: None,
            screen_width: None,
            screen_height: None,
            position_x: None,
            position_y: None,
            dont_set_visible_size: None,
            screen_orientation: None,
            viewport: None,
            display_feature: None,
            device_posture: None,
        })?;
        sleep(Duration::from_millis(300));
        Ok(())
    }

    /// Keeps what is seen.
    #[expect(clippy::disallowed_methods, reason = "a picture for people; nothing reads it back")]
    pub fn screenshot(&self, folder: &Path, name: &str) -> Result<()> {
        sleep(Duration::from_millis(150));
        let png = self.tab.capture_screenshot(Page::CaptureScreenshotFormatOption::Png, None, None, true)?;
        std::fs::write(folder.join(format!("{name}.png")), png).context("cannot keep a screenshot")
    }

    /// What has been complained of so far.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().map(|heard| heard.clone()).unwrap_or_default()
    }
}

fn complaint(event: &Event) -> Option<String> {
    match event {
        Event::RuntimeExceptionThrown(thrown) => {
            let details = &thrown.params.exception_details;
            let words = details.exception.as_ref().and_then(|thrown| thrown.description.clone());
            Some(format!("exception: {}", words.unwrap_or_else(|| details.text.clone())))
        }
        Event::RuntimeConsoleAPICalled(called)
            if called.params.Type == Runtime::ConsoleAPICalledEventTypeOption::Error =>
        {
            Some(format!("console: {:?}", called.params.args))
        }
        Event::LogEntryAdded(added) if added.params.entry.level == Log::LogEntryLevel::Error => {
            Some(format!("log: {} ({:?})", added.params.entry.text, added.params.entry.url))
        }
        Event::NetworkRequestWillBeSent(sent) => {
            let url = &sent.params.request.url;
            let local = ["file:", "data:", "about:"].iter().any(|scheme| url.starts_with(scheme));
            (!local).then(|| format!("request: {url}"))
        }
        _ => None,
    }
}
